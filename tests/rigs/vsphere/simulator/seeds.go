// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// seed is a machine that a test wants to find.
type seed struct {
	Name       string     `json:"name"`
	Folder     string     `json:"folder"` // below the datacenter's folder of machines, made where missing
	Host       string     `json:"host"`   // empty: the first
	Datastore  string     `json:"datastore"`
	Disks      []seedDisk `json:"disks"`
	Networks   []string   `json:"networks"`
	Adapter    string     `json:"adapter"` // of networks
	Controller string     `json:"controller"`
	Version    string     `json:"version"` // of the virtual hardware, "vmx-19"
	Firmware   string     `json:"firmware"`
	SecureBoot bool       `json:"secure_boot"`
	Tpm        bool       `json:"tpm"`
	Encrypted  bool       `json:"encrypted"`
	Template   bool       `json:"template"`
	Running    bool       `json:"running"`
	Tracking   bool       `json:"tracking"` // of changes, in effect
	Cpus       int32      `json:"cpus"`
	Memory     int64      `json:"memory"` // MiB
	GuestID    string     `json:"guest_id"`
	Annotation string     `json:"annotation"`
	UUID       string     `json:"uuid"`
	Nvram      string     `json:"nvram"` // path of the file
}

type seedDisk struct {
	Path       string `json:"path"` // of the raw bytes; empty: zeros
	Size       int64  `json:"size"`
	Mode       string `json:"mode"`
	Thin       bool   `json:"thin"`
	Datastore  string `json:"datastore"`  // empty: the machine's
	Controller string `json:"controller"` // empty: the machine's
}

func newSeed() *seed {
	return &seed{
		Datastore:  "LocalDS_0",
		Networks:   []string{"VM Network"},
		Adapter:    "vmxnet3",
		Controller: "pvscsi",
		Version:    "vmx-19",
		Firmware:   "bios",
		Cpus:       1,
		Memory:     64,
		GuestID:    "otherGuest64",
	}
}

// seed makes the machine through the simulator, and gives its disks their bytes.
func (s *site) seed(wanted *seed) (interface{}, error) {
	ctx := context.Background()
	host, pool, err := hostAndPool(wanted.Host)
	if err != nil {
		return nil, err
	}
	folder, err := s.makeFolders(wanted.Folder)
	if err != nil {
		return nil, err
	}
	config, err := wanted.config()
	if err != nil {
		return nil, err
	}
	task, err := methods.CreateVM_Task(ctx, s.client, &types.CreateVM_Task{
		This: folder.Self, Config: *config, Pool: pool, Host: &host,
	})
	if err != nil {
		return nil, err
	}
	if fault := taskFault(task.Returnval); fault != nil {
		return nil, fmt.Errorf("%s: %+v", faultName(fault), fault)
	}
	vm := s.inFolder(folder.Self, wanted.Name)
	m, fault := s.machine(vm.Self)
	if fault != nil {
		return nil, errors.New(faultName(fault))
	}
	for i, each := range wanted.Disks {
		if each.Path == "" {
			continue
		}
		d, err := m.diskAt(i)
		if err != nil {
			return nil, err
		}
		if err := copyFile(each.Path, d.base); err != nil {
			return nil, err
		}
	}
	if err := m.furnish(wanted); err != nil {
		return nil, err
	}
	if wanted.Running {
		if a := s.powerOn(&types.PowerOnVM_Task{This: vm.Self}); a.fault != nil {
			return nil, errors.New(faultName(a.fault))
		}
	}
	m.tell()
	return map[string]string{"id": vm.Self.Value, "uuid": vm.Config.Uuid}, nil
}

// furnish sets what the simulator takes from no specification.
func (m *machine) furnish(wanted *seed) error {
	if wanted.Tracking {
		m.vm.Config.ChangeTrackingEnabled = types.NewBool(true)
		m.starred = true
		m.stun()
	}
	m.needsConsolidation(false)
	if wanted.Encrypted {
		m.vm.Config.KeyId = &types.CryptoKeyId{KeyId: "key-1", ProviderId: &types.KeyProviderId{Id: "keys"}}
	}
	m.vm.Config.Template = wanted.Template
	m.vm.Summary.Config.Template = wanted.Template
	m.startTools(false)
	if wanted.Nvram == "" {
		return nil
	}
	place, err := datastorePath(m.vm.Config.Files.VmPathName)
	if err != nil {
		return err
	}
	return copyFile(wanted.Nvram, strings.TrimSuffix(place, path.Ext(place))+".nvram")
}

func (w *seed) config() (*types.VirtualMachineConfigSpec, error) {
	config := &types.VirtualMachineConfigSpec{
		Name:       w.Name,
		GuestId:    w.GuestID,
		Annotation: w.Annotation,
		Version:    w.Version,
		Firmware:   w.Firmware,
		Uuid:       w.UUID,
		NumCPUs:    w.Cpus,
		MemoryMB:   w.Memory,
		Files:      &types.VirtualMachineFileInfo{VmPathName: fmt.Sprintf("[%s]", w.Datastore)},
	}
	if w.SecureBoot {
		config.BootOptions = &types.VirtualMachineBootOptions{EfiSecureBootEnabled: types.NewBool(true)}
	}
	devices, err := w.devices()
	if err != nil {
		return nil, err
	}
	config.DeviceChange, err = devices.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	return config, err
}

func (w *seed) devices() (object.VirtualDeviceList, error) {
	var devices object.VirtualDeviceList
	controllers := map[string]types.BaseVirtualController{}
	buses := map[string]int32{}
	for i, each := range w.Disks {
		kind := each.Controller
		if kind == "" {
			kind = w.Controller
		}
		if controllers[kind] == nil {
			made, err := newController(devices, kind)
			if err != nil {
				return nil, err
			}
			class := classOf(kind)
			made.GetVirtualDevice().Key = class.controller + buses[class.name]
			made.GetVirtualDevice().DeviceInfo = label("%s controller %d", class.name, buses[class.name])
			made.(types.BaseVirtualController).GetVirtualController().BusNumber = buses[class.name]
			buses[class.name]++
			devices = append(devices, made)
			controllers[kind] = made.(types.BaseVirtualController)
		}
		disk, err := w.disk(devices, controllers[kind], classOf(kind), i)
		if err != nil {
			return nil, err
		}
		devices = append(devices, disk)
	}
	for i, name := range w.Networks {
		backing, err := networkBacking(name)
		if err != nil {
			return nil, err
		}
		card, err := devices.CreateEthernetCard(w.Adapter, backing)
		if err != nil {
			return nil, err
		}
		card.GetVirtualDevice().Key = firstCard + int32(i)
		card.GetVirtualDevice().DeviceInfo = label("Network adapter %d", i+1)
		devices = append(devices, card)
	}
	if w.Tpm {
		tpm := &types.VirtualTPM{}
		tpm.Key = tpmKey
		tpm.DeviceInfo = label("Virtual TPM")
		devices = append(devices, tpm)
	}
	return devices, nil
}

// disk is the machine's next; each has a file of its own, which the simulator makes.
func (w *seed) disk(devices object.VirtualDeviceList, on types.BaseVirtualController, class class, i int) (*types.VirtualDisk, error) {
	wanted := w.Disks[i]
	store := wanted.Datastore
	if store == "" {
		store = w.Datastore
	}
	if store != w.Datastore {
		if err := makeFolder(store, w.Name); err != nil {
			return nil, err
		}
	}
	name := fmt.Sprintf("[%s] %s/%s.vmdk", store, w.Name, w.Name)
	if i > 0 {
		name = fmt.Sprintf("[%s] %s/%s_%d.vmdk", store, w.Name, w.Name, i)
	}
	disk := devices.CreateDisk(on, types.ManagedObjectReference{}, name)
	disk.Key = class.disk + class.perBus*on.GetVirtualController().BusNumber + *disk.UnitNumber
	disk.DeviceInfo = label("Hard disk %d", i+1)
	disk.CapacityInKB, disk.CapacityInBytes = wanted.Size/1024, wanted.Size
	backing := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	backing.ThinProvisioned = types.NewBool(wanted.Thin)
	if wanted.Mode != "" {
		backing.DiskMode = wanted.Mode
	}
	return disk, nil
}

func label(format string, words ...interface{}) *types.Description {
	return &types.Description{Label: fmt.Sprintf(format, words...)}
}

// class is how ESXi numbers the controllers of a kind and the disks on them.
type class struct {
	name             string
	controller, disk int32 // the first key of each
	perBus           int32 // keys of disks on one controller
}

const firstCard, tpmKey = 4000, 11000

func classOf(kind string) class {
	switch kind {
	case "ide":
		return class{"IDE", 202, 3000, 2} // 200 and 201 are in every machine
	case "sata":
		return class{"SATA", 15000, 16000, 30}
	case "nvme":
		return class{"NVME", 31000, 32000, 15}
	}
	return class{"SCSI", 1000, 2000, 16}
}

func newController(devices object.VirtualDeviceList, kind string) (types.BaseVirtualDevice, error) {
	switch kind {
	case "ide":
		return devices.CreateIDEController()
	case "nvme":
		return devices.CreateNVMEController()
	case "sata":
		return &types.VirtualAHCIController{}, nil
	}
	return devices.CreateSCSIController(kind)
}
