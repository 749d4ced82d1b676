// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// disk is a virtual disk with its bytes. While there are snapshots, the flat file of the base holds the state of the
// first of them, and what the guest writes goes elsewhere (on ESXi: into a delta in a format of its own).
type disk struct {
	key      int32
	base     string // path of the flat file in the datastore's folder
	baseName string // "[datastore] folder/name.vmdk"
	name     string // what the machine's device says: of the base, or of a delta
	deltas   int    // numbers given to deltas so far
	current  string // path of the file with the bytes that the guest sees
	size     int64
	tracking *tracking // nil: not tracked
}

// flatFile is where the simulator keeps the bytes of "[datastore] folder/name.vmdk".
func flatFile(name string) (string, error) {
	folder, err := datastorePath(name)
	return strings.TrimSuffix(folder, ".vmdk") + "-flat.vmdk", err
}

func datastorePath(name string) (string, error) {
	var p object.DatastorePath
	if !p.FromString(name) {
		return "", fmt.Errorf("%q is no path in a datastore", name)
	}
	folder, err := datastoreFolder(p.Datastore)
	return filepath.Join(folder, p.Path), err
}

func datastoreFolder(name string) (string, error) {
	for _, entity := range simulator.Map.All("Datastore") {
		if found := entity.(*simulator.Datastore); found.Name == name {
			return found.Info.GetDatastoreInfo().Url, nil
		}
	}
	return "", fmt.Errorf("there is no datastore %q", name)
}

// datastoreFolders lists the folders in all datastores: what removed machines must not leave behind.
func datastoreFolders() []string {
	found := []string{}
	for _, entity := range simulator.Map.All("Datastore") {
		store := entity.(*simulator.Datastore)
		entries, _ := os.ReadDir(store.Info.GetDatastoreInfo().Url)
		for _, entry := range entries {
			found = append(found, fmt.Sprintf("[%s] %s", store.Name, entry.Name()))
		}
	}
	return found
}

func newDisk(device *types.VirtualDisk) (*disk, error) {
	backing, ok := device.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if !ok {
		return nil, errors.New("a disk without a flat file")
	}
	flat, err := flatFile(backing.FileName)
	if err != nil {
		return nil, err
	}
	made := &disk{key: device.Key, base: flat, baseName: backing.FileName, name: backing.FileName, current: flat}
	return made, made.resize(device.CapacityInKB * 1024)
}

// resize gives the file the length of the disk; the simulator makes empty ones.
func (d *disk) resize(size int64) error {
	if d.size == size {
		return nil
	}
	d.size = size
	if d.tracking != nil { // extending a disk ends its tracking (VMware KB 2004408)
		d.tracking = newTracking(size)
	}
	return os.Truncate(d.current, size)
}

// write does what the guest does.
func (d *disk) write(data []byte, offset int64) error {
	if offset < 0 || offset+int64(len(data)) > d.size {
		return fmt.Errorf("[%d, %d) is not within a disk of %d bytes", offset, offset+int64(len(data)), d.size)
	}
	file, err := os.OpenFile(d.current, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err = file.WriteAt(data, offset); err == nil && d.tracking != nil {
		d.tracking.note(offset, int64(len(data)))
	}
	if closing := file.Close(); err == nil {
		err = closing
	}
	return err
}

// nextName is the name of a new delta beside the base.
func (d *disk) nextName() string {
	d.deltas++
	return fmt.Sprintf("%s-%06d.vmdk", strings.TrimSuffix(d.baseName, ".vmdk"), d.deltas)
}

// announce puts a delta's descriptor into the datastore, as one who browses it expects.
func announce(name string) error {
	path, err := datastorePath(name)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte("# Disk DescriptorFile\nversion=1\ncreateType=\"seSparse\"\n"), 0o600)
}

func withdraw(name string) {
	if path, err := datastorePath(name); err == nil {
		_ = os.Remove(path)
	}
}

func copyFile(from, to string) error {
	said, err := exec.Command("cp", "--sparse=always", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, said)
	}
	return nil
}
