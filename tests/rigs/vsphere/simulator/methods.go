// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// answer runs the methods that move or keep bytes; nil leaves a call to the simulator.
func (s *site) answer(method *simulator.Method, met *fault) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	unconsolidated := met != nil && met.Action == "unconsolidated"
	switch request := method.Body.(type) {
	case *types.CreateSnapshot_Task:
		return s.createSnapshot(method.Name, request)
	case *types.CreateSnapshotEx_Task:
		return s.createSnapshot(method.Name, &types.CreateSnapshot_Task{
			This:        request.This,
			Name:        request.Name,
			Description: request.Description,
			Memory:      request.Memory,
			Quiesce:     request.QuiesceSpec != nil,
		})
	case *types.RemoveSnapshot_Task:
		return s.removeSnapshot(request, unconsolidated)
	case *types.RemoveAllSnapshots_Task:
		return s.removeAllSnapshots(request, unconsolidated)
	case *types.RevertToSnapshot_Task:
		return s.revertTo(method.Name, request.This)
	case *types.RevertToCurrentSnapshot_Task:
		vm := machineOf(request.This)
		if vm == nil || vm.Snapshot == nil || vm.Snapshot.CurrentSnapshot == nil {
			return refused(&types.NotFound{})
		}
		return s.revertTo(method.Name, *vm.Snapshot.CurrentSnapshot)
	case *types.ConsolidateVMDisks_Task:
		return s.consolidate(request)
	case *types.QueryChangedDiskAreas:
		return s.changedAreas(request)
	case *types.ReconfigVM_Task:
		return s.reconfigure(request)
	case *types.PowerOnVM_Task:
		return s.powerOn(request)
	case *types.Destroy_Task:
		if request.This.Type == "VirtualMachine" {
			return s.destroy(request)
		}
	case *types.CancelTask:
		return s.cancelTask(request)
	case *types.ExportVm:
		return s.exportMachine(request)
	case *types.ExportSnapshot:
		return s.exportSnapshot(request)
	case *types.HasPrivilegeOnEntity:
		return s.privileges(request)
	case *types.CreateDescriptor:
		return s.createDescriptor(request)
	case *types.CreateImportSpec:
		return s.createImportSpec(request)
	case *types.ImportVApp:
		return s.importMachine(request)
	}
	return nil
}

// privilegesResponse has each answer, while the library's own leaves those out that are false.
type privilegesResponse struct {
	Returnval []bool `xml:"returnval"`
}

// privileges answers HasPrivilegeOnEntity: the user has them all, but for those that a test takes away.
func (s *site) privileges(request *types.HasPrivilegeOnEntity) *answer {
	var granted []bool
	for _, asked := range request.PrivId {
		has := true
		for _, denied := range s.settings.Denied {
			has = has && denied != asked
		}
		granted = append(granted, has)
	}
	return &answer{name: "HasPrivilegeOnEntityResponse", response: &privilegesResponse{Returnval: granted}}
}
