// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"fmt"
	"html"
	"log"
	"path"
	"regexp"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// What the simulator reads over in an OVF, in the words of the descriptors that vCenter exports.
var (
	itemPattern       = regexp.MustCompile(`(?s)<(?:\w+:)?Item\b.*?</(?:\w+:)?Item>`)
	kindPattern       = regexp.MustCompile(`(ResourceType>\s*)(\d+)(\s*<)`)
	subtypePattern    = regexp.MustCompile(`(ResourceSubType>\s*)([^<]*?)(\s*<)`)
	configPattern     = regexp.MustCompile(`<(?:\w+:)?(?:Extra)?Config\b[^>]*>`)
	filePattern       = regexp.MustCompile(`<(?:\w+:)?File\b[^>]*>`)
	attributePattern  = regexp.MustCompile(`(\w+)="([^"]*)"`)
	annotationPattern = regexp.MustCompile(`(?s)<(?:\w+:)?Annotation>(.*?)</`)
)

const (
	scsiKind, otherStorageKind = "6", "20" // CIM_ResourceAllocationSettingData.ResourceType (DMTF DSP1041)
	nvramKey                   = "nvram"
)

// createImportSpec answers CreateImportSpec: the simulator's answer, and what vCenter reads beyond it: SATA and NVMe,
// firmware, annotation, NVRAM, and how disks are provisioned.
func (s *site) createImportSpec(request *types.CreateImportSpec) (a *answer) {
	defer func() {
		if what := recover(); what != nil {
			log.Printf("CreateImportSpec: %v", what)
			a = refused(&types.InvalidArgument{InvalidProperty: "ovfDescriptor"})
		}
	}()
	asked := *request
	var controllers []string
	asked.OvfDescriptor, controllers = plainControllers(request.OvfDescriptor)
	done, err := methods.CreateImportSpec(context.Background(), s.client, &asked)
	if err != nil {
		return refused(faultOf(err))
	}
	result := &done.Returnval
	spec, ok := result.ImportSpec.(*types.VirtualMachineImportSpec)
	if !ok {
		return answered(done)
	}
	placeControllers(spec.ConfigSpec.DeviceChange, controllers)
	provision(spec.ConfigSpec.DeviceChange, request.Cisp.DiskProvisioning)
	if found := annotationPattern.FindStringSubmatch(request.OvfDescriptor); found != nil {
		spec.ConfigSpec.Annotation = html.UnescapeString(strings.TrimSpace(found[1]))
	}
	for _, element := range configPattern.FindAllString(request.OvfDescriptor, -1) {
		words := attributes(element)
		switch words["key"] {
		case "firmware":
			spec.ConfigSpec.Firmware = words["value"]
		case "bootOptions.efiSecureBootEnabled":
			secure := words["value"] == "true"
			spec.ConfigSpec.BootOptions = &types.VirtualMachineBootOptions{EfiSecureBootEnabled: &secure}
		case nvramKey:
			if href := hrefOf(request.OvfDescriptor, path.Base(words["value"])); href != "" && s.settings.TakesNvram {
				result.FileItem = append(result.FileItem, types.OvfFileItem{
					DeviceId: fmt.Sprintf("/%s/%s", request.Cisp.EntityName, nvramKey), Path: href, Create: true,
				})
				value := &types.OptionValue{Key: nvramKey, Value: request.Cisp.EntityName + ".nvram"}
				spec.ConfigSpec.ExtraConfig = append(spec.ConfigSpec.ExtraConfig, value)
			}
		}
	}
	return answered(done)
}

// plainControllers makes SCSI controllers that the simulator knows of all that are for disks, and tells what each was.
func plainControllers(descriptor string) (string, []string) {
	var kinds []string
	plain := itemPattern.ReplaceAllStringFunc(descriptor, func(item string) string {
		kind, subtype := kindPattern.FindStringSubmatch(item), subtypePattern.FindStringSubmatch(item)
		if kind == nil || (kind[2] != scsiKind && kind[2] != otherStorageKind) {
			return item
		}
		name := ""
		if subtype != nil {
			name = strings.ToLower(subtype[2])
		}
		switch name {
		case "vmware.sata.ahci", "ahci":
			name = "sata"
		case "vmware.nvme.controller":
			name = "nvme"
		case "lsilogicsas": // which the simulator calls otherwise
			kinds = append(kinds, name)
			return subtypePattern.ReplaceAllString(item, "${1}lsilogic-sas${3}")
		default:
			kinds = append(kinds, name)
			return item
		}
		kinds = append(kinds, name)
		item = kindPattern.ReplaceAllString(item, "${1}"+scsiKind+"${3}")
		return subtypePattern.ReplaceAllString(item, "${1}lsilogic${3}")
	})
	return plain, kinds
}

// placeControllers puts SATA and NVMe controllers where plainControllers put SCSI.
func placeControllers(changes []types.BaseVirtualDeviceConfigSpec, kinds []string) {
	next := 0
	for _, change := range changes {
		spec := change.GetVirtualDeviceConfigSpec()
		old, ok := spec.Device.(types.BaseVirtualSCSIController)
		if !ok || next >= len(kinds) {
			continue
		}
		controller := old.GetVirtualSCSIController().VirtualController
		switch kinds[next] {
		case "sata":
			made := &types.VirtualAHCIController{}
			made.VirtualController = controller
			spec.Device = made
		case "nvme":
			spec.Device = &types.VirtualNVMEController{VirtualController: controller}
		}
		next++
	}
}

// provision makes disks thin, thick or eagerly zeroed (OvfCreateImportSpecParams.diskProvisioning).
func provision(changes []types.BaseVirtualDeviceConfigSpec, how string) {
	for _, change := range changes {
		disk, ok := change.GetVirtualDeviceConfigSpec().Device.(*types.VirtualDisk)
		if !ok {
			continue
		}
		if backing, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
			backing.ThinProvisioned = types.NewBool(how == "thin")
			backing.EagerlyScrub = types.NewBool(how == "eagerZeroedThick")
		}
	}
}

func attributes(element string) map[string]string {
	found := map[string]string{}
	for _, each := range attributePattern.FindAllStringSubmatch(element, -1) {
		found[each[1]] = html.UnescapeString(each[2])
	}
	return found
}

func hrefOf(descriptor, id string) string {
	for _, element := range filePattern.FindAllString(descriptor, -1) {
		if words := attributes(element); words["id"] == id {
			return words["href"]
		}
	}
	return ""
}

// wantsNvram tells whether a new machine's NVRAM is to be sent, by what createImportSpec put into its configuration.
func wantsNvram(config *types.VirtualMachineConfigSpec) bool {
	for _, each := range config.ExtraConfig {
		if each.GetOptionValue().Key == nvramKey {
			return true
		}
	}
	return false
}
