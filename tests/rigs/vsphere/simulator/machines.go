// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// machine is what the simulator does not know of a virtual machine: its bytes, and their history.
type machine struct {
	vm      *simulator.VirtualMachine
	private string
	disks   map[int32]*disk
	points  map[types.ManagedObjectReference]*point
	current *point // on which the present stands
	tracks  bool   // change tracking has taken effect
	starred bool   // and began without snapshots
}

// point is what a snapshot holds.
type point struct {
	ref    types.ManagedObjectReference
	parent *point
	disks  map[int32]*frozen
	hidden bool // the snapshot is gone, its disks wait to be consolidated
}

type frozen struct {
	disk     *disk
	file     string
	name     string // of the file in the datastore: the base's or a delta's
	size     int64
	tracking *tracking
}

// machine finds the state of one, and makes its disks what the devices say.
func (s *site) machine(ref types.ManagedObjectReference) (*machine, types.BaseMethodFault) {
	vm := machineOf(ref)
	if vm == nil {
		return nil, &types.ManagedObjectNotFound{Obj: ref}
	}
	m, ok := s.machines[ref.Value]
	if !ok {
		m = &machine{
			vm:      vm,
			private: s.private,
			disks:   map[int32]*disk{},
			points:  map[types.ManagedObjectReference]*point{},
		}
		s.machines[ref.Value] = m
	}
	if err := m.adopt(); err != nil {
		return nil, &types.SystemError{Reason: err.Error()}
	}
	return m, nil
}

func disksOf(devices []types.BaseVirtualDevice) []*types.VirtualDisk {
	var found []*types.VirtualDisk
	for _, device := range object.VirtualDeviceList(devices).SelectByType((*types.VirtualDisk)(nil)) {
		found = append(found, device.(*types.VirtualDisk))
	}
	return found
}

// adopt notices disks that were added, removed or extended.
func (m *machine) adopt() error {
	seen := map[int32]bool{}
	for _, device := range disksOf(m.vm.Config.Hardware.Device) {
		seen[device.Key] = true
		known := m.disks[device.Key]
		backing, flat := device.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		if known != nil && flat && known.name == backing.FileName {
			if err := known.resize(device.CapacityInKB * 1024); err != nil {
				return err
			}
			continue
		}
		made, err := newDisk(device)
		if err != nil {
			return err
		}
		if m.tracks {
			made.tracking = newTracking(made.size)
			made.tracking.starred = m.starred
		}
		m.disks[device.Key] = made
	}
	for key := range m.disks {
		if !seen[key] {
			delete(m.disks, key)
		}
	}
	return nil
}

func (m *machine) file() string { return filepath.Join(m.private, uuid.New().String()) }

// freeze makes the present a point in time. Disks that are independent of snapshots go on as they were.
func (m *machine) freeze(ref types.ManagedObjectReference) (*point, error) {
	made := &point{ref: ref, parent: m.current, disks: map[int32]*frozen{}}
	for _, device := range disksOf(m.vm.Config.Hardware.Device) {
		backing := device.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		if isIndependent(backing.DiskMode) {
			continue
		}
		d := m.disks[device.Key]
		kept := &frozen{disk: d, file: d.current, name: d.name, size: d.size}
		next := m.file()
		if err := copyFile(d.current, next); err != nil {
			return nil, err
		}
		if d.tracking != nil {
			kept.tracking = d.tracking.freeze()
		}
		d.current, d.name = next, d.nextName()
		if err := announce(d.name); err != nil {
			return nil, err
		}
		made.disks[device.Key] = kept
	}
	m.points[ref] = made
	m.current = made
	return made, nil
}

func isIndependent(mode string) bool {
	return mode == string(types.VirtualDiskModeIndependent_persistent) ||
		mode == string(types.VirtualDiskModeIndependent_nonpersistent)
}

// fold takes a point out of history: who stands on it takes its place, and the base's file always has an owner.
func (m *machine) fold(p *point) error {
	delete(m.points, p.ref)
	heir := m.heir(p)
	for key, kept := range p.disks {
		if m.disks[key] != kept.disk { // the machine has it no more
			if kept.file != kept.disk.base {
				_ = os.Remove(kept.file)
			}
			continue
		}
		file, name, follows := &kept.disk.current, &kept.disk.name, m.current == p
		if heir != nil {
			its := heir.disks[key]
			if its == nil {
				continue
			}
			file, name, follows = &its.file, &its.name, heir.parent == p
		}
		if err := replace(kept, file); err != nil {
			return err
		}
		if follows || kept.name == kept.disk.baseName {
			withdraw(*name)
			*name = kept.name
		} else {
			withdraw(kept.name)
		}
	}
	for _, other := range m.points {
		if other.parent == p {
			other.parent = p.parent
		}
	}
	if m.current == p {
		m.current = p.parent
	}
	return nil
}

// replace removes the bytes of a point; those of the base make room for its heir's.
func replace(kept *frozen, heir *string) error {
	if kept.file != kept.disk.base {
		return os.Remove(kept.file)
	}
	err := os.Rename(*heir, kept.disk.base)
	*heir = kept.disk.base
	return err
}

// heir is the point that takes the place of a removed one: best that which stands on it on the way to the present.
// Nil is the present itself.
func (m *machine) heir(removed *point) *point {
	for each := m.current; each != nil; each = each.parent {
		if each.parent == removed {
			return each
		}
	}
	for _, each := range m.points {
		if each.parent == removed {
			return each
		}
	}
	if m.current != removed {
		for _, each := range m.points {
			return each
		}
	}
	return nil
}

// revert makes a point the present again. Change tracking starts anew: what was written since is unknown to it.
func (m *machine) revert(p *point) error {
	for key, kept := range p.disks {
		d := m.disks[key]
		if d == nil {
			continue
		}
		fresh := m.file()
		if err := copyFile(kept.file, fresh); err != nil {
			return err
		}
		if d.current != d.base {
			_ = os.Remove(d.current)
		}
		withdraw(d.name)
		d.current, d.name, d.size = fresh, d.nextName(), kept.size
		if err := announce(d.name); err != nil {
			return err
		}
		if d.tracking != nil {
			d.tracking = newTracking(d.size)
		}
	}
	m.current = p
	return nil
}

// backing is what a device says of a file in a chain: its name, and those it stands on.
func (m *machine) backing(like *types.VirtualDiskFlatVer2BackingInfo, key int32, name string, below *point) *types.VirtualDiskFlatVer2BackingInfo {
	made := *like
	made.FileName = name
	made.ChangeId = ""
	made.Parent = nil
	for ; below != nil; below = below.parent {
		if kept := below.disks[key]; kept != nil && kept.name != name {
			made.Parent = m.backing(like, key, kept.name, below.parent)
			break
		}
	}
	return &made
}

// devices are copies in which the disks are those of a point, or of the present (nil).
func (m *machine) devices(devices []types.BaseVirtualDevice, p *point) []types.BaseVirtualDevice {
	var made []types.BaseVirtualDevice
	for _, device := range devices {
		old, ok := device.(*types.VirtualDisk)
		if !ok {
			made = append(made, device)
			continue
		}
		fresh := *old
		made = append(made, &fresh)
		like, ok := old.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		if !ok {
			continue
		}
		if p == nil {
			if d := m.disks[old.Key]; d != nil {
				backing := m.backing(like, old.Key, d.name, m.current)
				if d.tracking != nil {
					backing.ChangeId = d.tracking.changeID()
				}
				fresh.Backing = backing
			}
			continue
		}
		if kept := p.disks[old.Key]; kept != nil {
			backing := m.backing(like, old.Key, kept.name, p.parent)
			if kept.tracking != nil {
				backing.ChangeId = kept.tracking.changeID()
			}
			fresh.Backing = backing
		}
	}
	return made
}

// tell writes the present chain into the devices that clients see, of the machine and of its snapshots.
func (m *machine) tell() {
	simulator.Map.WithLock(m.vm, func() {
		devices := m.devices(m.vm.Config.Hardware.Device, nil)
		simulator.Map.Update(m.vm, []types.PropertyChange{{Name: "config.hardware.device", Val: devices}})
	})
	for ref, each := range m.points {
		if snapshot, ok := simulator.Map.Get(ref).(*simulator.VirtualMachineSnapshot); ok {
			snapshot.Config.Hardware.Device = m.devices(snapshot.Config.Hardware.Device, each)
		}
	}
}

// forget removes the bytes of a machine that is gone.
func (m *machine) forget() {
	for _, d := range m.disks {
		for _, path := range []string{d.current, d.base} {
			_ = os.Remove(path)
		}
		withdraw(d.name)
		withdraw(d.baseName)
		_ = os.Remove(filepath.Dir(d.base)) // where it was the last
	}
	for ref, p := range m.points {
		for _, kept := range p.disks {
			_ = os.Remove(kept.file)
			withdraw(kept.name)
			_ = os.Remove(filepath.Dir(kept.disk.base))
		}
		simulator.Map.Remove(ref)
	}
}

// diskAt finds a disk by its place among the machine's.
func (m *machine) diskAt(index int) (*disk, error) {
	devices := disksOf(m.vm.Config.Hardware.Device)
	if index < 0 || index >= len(devices) {
		return nil, fmt.Errorf("%s has no disk %d", m.vm.Name, index)
	}
	return m.disks[devices[index].Key], nil
}
