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
