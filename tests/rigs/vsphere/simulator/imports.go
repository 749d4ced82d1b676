// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// importMachine answers ImportVApp: the simulator makes the machine, and its disks wait for what is sent.
func (s *site) importMachine(request *types.ImportVApp) *answer {
	spec, ok := request.Spec.(*types.VirtualMachineImportSpec)
	if !ok {
		return refused(&types.InvalidArgument{InvalidProperty: "spec"})
	}
	folder := s.folderOf(request.Folder, request.This)
	if folder == nil {
		return refused(&types.InvalidArgument{InvalidProperty: "folder"})
	}
	if s.inFolder(*folder, spec.ConfigSpec.Name) != nil {
		return refused(&types.DuplicateName{Name: spec.ConfigSpec.Name, Object: *folder})
	}
	number(spec.ConfigSpec.DeviceChange)
	_, err := methods.CreateVM_Task(context.Background(), s.client, &types.CreateVM_Task{
		This: *folder, Config: spec.ConfigSpec, Pool: request.This, Host: request.Host,
	})
	if err != nil {
		return refused(faultOf(err))
	}
	vm := s.inFolder(*folder, spec.ConfigSpec.Name)
	if vm == nil {
		return refused(&types.InvalidArgument{InvalidProperty: "spec.configSpec"})
	}
	m, fault := s.machine(vm.Self)
	if fault != nil {
		return refused(fault)
	}
	made := s.importLease(m, wantsNvram(&spec.ConfigSpec))
	return answered(&types.ImportVAppResponse{Returnval: made.Self})
}

// number gives disks and network cards the keys that vSphere gives them, in their order. The simulator's are random.
func number(changes []types.BaseVirtualDeviceConfigSpec) {
	disks, cards := int32(2000), int32(4000)
	for _, change := range changes {
		switch device := change.GetVirtualDeviceConfigSpec().Device.(type) {
		case *types.VirtualDisk:
			device.Key = disks
			disks++
		case types.BaseVirtualEthernetCard:
			device.GetVirtualEthernetCard().Key = cards
			cards++
		}
	}
}

// importLease names an address for each file that a device of the new machine stands on. The import keys are those by
// which CreateImportSpec named the files of the OVF.
func (s *site) importLease(m *machine, nvram bool) *lease {
	devices := object.VirtualDeviceList(m.vm.Config.Hardware.Device)
	files := map[string]*leased{}
	counts := map[string]int{}
	var urls []types.HttpNfcLeaseDeviceUrl
	for _, device := range devices {
		backing, ok := device.GetVirtualDevice().Backing.(types.BaseVirtualDeviceFileBackingInfo)
		if !ok {
			continue
		}
		kind := devices.Type(device)
		number := counts[kind]
		counts[kind]++
		var place object.DatastorePath
		place.FromString(backing.GetVirtualDeviceFileBackingInfo().FileName)
		name := path.Base(place.Path)
		file := &leased{key: fmt.Sprintf("/%s/%s:%d", m.vm.Self.Value, kind, number)}
		if disk, ok := device.(*types.VirtualDisk); ok {
			file.disk, file.path, file.capacity = true, m.disks[disk.Key].base, m.disks[disk.Key].size
		} else if file.path, _ = datastorePath(place.String()); file.path == "" {
			continue
		}
		files[name] = file
		urls = append(urls, types.HttpNfcLeaseDeviceUrl{
			Key: file.key, ImportKey: fmt.Sprintf("/%s/%s:%d", m.vm.Name, kind, number), TargetId: name,
		})
	}
	if place, err := datastorePath(m.vm.Config.Files.VmPathName); nvram && err == nil {
		name, key := m.vm.Name+".nvram", fmt.Sprintf("/%s/%s", m.vm.Self.Value, nvramKey)
		files[name] = &leased{key: key, path: strings.TrimSuffix(place, path.Ext(place)) + ".nvram"}
		urls = append(urls, types.HttpNfcLeaseDeviceUrl{
			Key: key, ImportKey: fmt.Sprintf("/%s/%s", m.vm.Name, nvramKey), TargetId: name,
		})
	}
	return s.newLease(m.vm.Self, true, urls, files)
}

// folderOf is the one that was asked for, else that of the pool's datacenter.
func (s *site) folderOf(asked *types.ManagedObjectReference, pool types.ManagedObjectReference) *types.ManagedObjectReference {
	if asked != nil {
		if _, ok := simulator.Map.Get(*asked).(*simulator.Folder); ok {
			return asked
		}
		return nil
	}
	for entity, ok := simulator.Map.Get(pool).(mo.Entity); ok; {
		if datacenter, found := entity.(*simulator.Datacenter); found {
			return &datacenter.VmFolder
		}
		parent := entity.Entity().Parent
		if parent == nil {
			return nil
		}
		entity, ok = simulator.Map.Get(*parent).(mo.Entity)
	}
	return nil
}

func (s *site) inFolder(folder types.ManagedObjectReference, name string) *simulator.VirtualMachine {
	for _, entity := range simulator.Map.All("VirtualMachine") {
		vm := entity.(*simulator.VirtualMachine)
		if vm.Name == name && vm.Parent != nil && *vm.Parent == folder {
			return vm
		}
	}
	return nil
}
