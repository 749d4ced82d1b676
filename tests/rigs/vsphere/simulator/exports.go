// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// exportMachine answers ExportVm: only what is switched off can be read so.
func (s *site) exportMachine(request *types.ExportVm) *answer {
	m, fault := s.machine(request.This)
	if fault != nil {
		return refused(fault)
	}
	if state := m.vm.Runtime.PowerState; state != types.VirtualMachinePowerStatePoweredOff {
		return refused(&types.InvalidPowerState{
			RequestedState: types.VirtualMachinePowerStatePoweredOff,
			ExistingState:  state,
		})
	}
	made := s.exportLease(m, m.vm.Config.Hardware.Device, func(key int32) (string, int64) {
		return m.disks[key].current, m.disks[key].size
	})
	return answered(&types.ExportVmResponse{Returnval: made.Self})
}

// exportSnapshot answers ExportSnapshot: what the snapshot froze, whatever the machine does.
func (s *site) exportSnapshot(request *types.ExportSnapshot) *answer {
	snapshot, ok := simulator.Map.Get(request.This).(*simulator.VirtualMachineSnapshot)
	if !ok {
		return refused(&types.ManagedObjectNotFound{Obj: request.This})
	}
	m, fault := s.machine(snapshot.Vm)
	if fault != nil {
		return refused(fault)
	}
	p := m.points[request.This]
	if p == nil {
		return refused(&types.ManagedObjectNotFound{Obj: request.This})
	}
	made := s.exportLease(m, snapshot.Config.Hardware.Device, func(key int32) (string, int64) {
		if kept := p.disks[key]; kept != nil {
			return kept.file, kept.size
		}
		return "", 0 // independent of snapshots: not part of one
	})
	return answered(&types.ExportSnapshotResponse{Returnval: made.Self})
}

// createDescriptor answers with as little of an OVF as tells whose it is.
func (s *site) createDescriptor(request *types.CreateDescriptor) *answer {
	m, fault := s.machine(request.Obj)
	if fault != nil {
		return refused(fault)
	}
	text := fmt.Sprintf("<?xml version=\"1.0\"?>\n<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\">"+
		"<VirtualSystem id=%q/></Envelope>\n", m.vm.Name)
	return answered(&types.CreateDescriptorResponse{Returnval: types.OvfCreateDescriptorResult{OvfDescriptor: text}})
}

// exportLease offers each disk of the devices, and the NVRAM of a machine that has one.
func (s *site) exportLease(m *machine, devices []types.BaseVirtualDevice, bytes func(int32) (string, int64)) *lease {
	files := map[string]*leased{}
	var urls []types.HttpNfcLeaseDeviceUrl
	for i, device := range disksOf(devices) {
		path, size := bytes(device.Key)
		if path == "" {
			continue
		}
		name := fmt.Sprintf("disk-%d.vmdk", i)
		unit := int32(0)
		if device.UnitNumber != nil {
			unit = *device.UnitNumber
		}
		key := fmt.Sprintf("/%s/%s:%d", m.vm.Self.Value, controllerName(devices, device.ControllerKey), unit)
		files[name] = &leased{key: key, path: path, disk: true, capacity: size}
		urls = append(urls, types.HttpNfcLeaseDeviceUrl{Key: key, ImportKey: key, TargetId: name})
	}
	if path := m.nvram(); path != "" {
		name, key := m.vm.Name+".nvram", fmt.Sprintf("/%s/nvram", m.vm.Self.Value)
		files[name] = &leased{key: key, path: path}
		urls = append(urls, types.HttpNfcLeaseDeviceUrl{Key: key, ImportKey: key, TargetId: name})
	}
	return s.newLease(m.vm.Self, false, urls, files)
}

func controllerName(devices []types.BaseVirtualDevice, key int32) string {
	list := object.VirtualDeviceList(devices)
	if found, ok := list.FindByKey(key).(types.BaseVirtualController); ok {
		return fmt.Sprintf("%s%d", list.TypeName(found.(types.BaseVirtualDevice)), found.GetVirtualController().BusNumber)
	}
	return "VirtualController0"
}

// nvram is the file with the firmware's variables, where there is anything in it.
func (m *machine) nvram() string {
	path, err := datastorePath(m.vm.Config.Files.VmPathName)
	if err != nil {
		return ""
	}
	path = strings.TrimSuffix(path, filepath.Ext(path)) + ".nvram"
	if status, err := os.Stat(path); err != nil || status.Size() == 0 {
		return ""
	}
	return path
}
