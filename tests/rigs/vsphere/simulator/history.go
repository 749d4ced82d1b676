// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"os"

	"github.com/vmware/govmomi/vim25/types"
)

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
