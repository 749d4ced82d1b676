// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// makeFolder makes the place of disks that do not lie beside their machine.
func makeFolder(store, name string) error {
	root, err := datastoreFolder(store)
	if err != nil {
		return err
	}
	return os.MkdirAll(filepath.Join(root, name), 0o700)
}

func networkBacking(name string) (types.BaseVirtualDeviceBackingInfo, error) {
	for _, entity := range simulator.Map.All("DistributedVirtualPortgroup") {
		group := entity.(*simulator.DistributedVirtualPortgroup)
		if group.Name != name {
			continue
		}
		dvs := simulator.Map.Get(*group.Config.DistributedVirtualSwitch).(*simulator.DistributedVirtualSwitch)
		return &types.VirtualEthernetCardDistributedVirtualPortBackingInfo{
			Port: types.DistributedVirtualSwitchPortConnection{PortgroupKey: group.Key, SwitchUuid: dvs.Uuid},
		}, nil
	}
	for _, entity := range simulator.Map.All("Network") {
		if nameOf(entity) == name {
			made := &types.VirtualEthernetCardNetworkBackingInfo{}
			made.DeviceName = name
			return made, nil
		}
	}
	return nil, fmt.Errorf("there is no network %q", name)
}

// nameOf is an entity's name; networks keep theirs elsewhere than other entities do.
func nameOf(entity mo.Entity) string {
	if network, ok := entity.(*mo.Network); ok {
		return network.Name
	}
	return entity.Entity().Name
}

// hostAndPool are the named host, else the first by name, and the pool of its machines.
func hostAndPool(name string) (types.ManagedObjectReference, types.ManagedObjectReference, error) {
	hosts := simulator.Map.All("HostSystem")
	sort.Slice(hosts, func(i, j int) bool { return hosts[i].Entity().Name < hosts[j].Entity().Name })
	for _, entity := range hosts {
		if name != "" && entity.Entity().Name != name {
			continue
		}
		switch parent := simulator.Map.Get(*entity.Entity().Parent).(type) {
		case *simulator.ClusterComputeResource:
			return entity.Reference(), *parent.ResourcePool, nil
		case *mo.ComputeResource:
			return entity.Reference(), *parent.ResourcePool, nil
		}
	}
	return types.ManagedObjectReference{}, types.ManagedObjectReference{}, fmt.Errorf("there is no host %q", name)
}

// makeFolders walks down from the datacenter's folder of machines, and makes what is missing.
func (s *site) makeFolders(names string) (*simulator.Folder, error) {
	datacenter := simulator.Map.Any("Datacenter").(*simulator.Datacenter)
	folder := simulator.Map.Get(datacenter.VmFolder).(*simulator.Folder)
	for _, name := range strings.Split(names, "/") {
		if name == "" {
			continue
		}
		found, ok := simulator.Map.FindByName(name, folder.ChildEntity).(*simulator.Folder)
		if !ok {
			made, err := methods.CreateFolder(context.Background(), s.client, &types.CreateFolder{This: folder.Self, Name: name})
			if err != nil {
				return nil, err
			}
			found = simulator.Map.Get(made.Returnval).(*simulator.Folder)
		}
		folder = found
	}
	return folder, nil
}
