// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// createSnapshot lets the simulator make the snapshot, and freezes the bytes.
func (s *site) createSnapshot(method string, request *types.CreateSnapshot_Task) *answer {
	m, fault := s.machine(request.This)
	if fault != nil {
		return refused(fault)
	}
	done, err := methods.CreateSnapshot_Task(context.Background(), s.client, request)
	if err != nil {
		return refused(faultOf(err))
	}
	if taskFault(done.Returnval) == nil {
		ref := simulator.Map.Get(done.Returnval).(*simulator.Task).Info.Result.(types.ManagedObjectReference)
		if _, err := m.freeze(ref); err != nil {
			return refused(&types.SystemError{Reason: err.Error()})
		}
		if !request.Memory { // who reverts to it finds the machine off
			if item := inTree(m.vm.Snapshot.RootSnapshotList, ref); item != nil {
				item.State = types.VirtualMachinePowerStatePoweredOff
			}
		}
		m.stun()
		m.tell()
	}
	return taskOf(method, done.Returnval)
}

// removeSnapshot removes one, or one and all that stand on it, and gives the bytes to who follows.
func (s *site) removeSnapshot(request *types.RemoveSnapshot_Task, unconsolidated bool) *answer {
	snapshot, ok := simulator.Map.Get(request.This).(*simulator.VirtualMachineSnapshot)
	if !ok {
		return refused(&types.ManagedObjectNotFound{Obj: request.This})
	}
	m, fault := s.machine(snapshot.Vm)
	if fault != nil {
		return refused(fault)
	}
	if request.Consolidate != nil && !*request.Consolidate {
		unconsolidated = true
	}
	doomed := []types.ManagedObjectReference{request.This}
	if request.RemoveChildren {
		doomed = m.withChildren(request.This)
	}
	task, fault := s.remove(m, doomed, unconsolidated)
	if fault != nil {
		return refused(fault)
	}
	return taskOf("RemoveSnapshot_Task", task)
}

// remove takes snapshots away, in this order. The last task stands for all.
func (s *site) remove(m *machine, doomed []types.ManagedObjectReference, unconsolidated bool) (types.ManagedObjectReference, types.BaseMethodFault) {
	var task types.ManagedObjectReference
	for _, ref := range doomed {
		done, err := methods.RemoveSnapshot_Task(context.Background(), s.client, &types.RemoveSnapshot_Task{This: ref})
		if err != nil {
			return task, faultOf(err)
		}
		task = ofMachine(done.Returnval, m.vm.Self)
		p := m.points[ref]
		if p == nil {
			continue
		}
		p.hidden = true
		if !unconsolidated {
			if err := m.fold(p); err != nil {
				return task, &types.SystemError{Reason: err.Error()}
			}
		}
	}
	if unconsolidated {
		m.needsConsolidation(true)
	}
	m.stun()
	m.tell()
	return task, nil
}

func (s *site) removeAllSnapshots(request *types.RemoveAllSnapshots_Task, unconsolidated bool) *answer {
	m, fault := s.machine(request.This)
	if fault != nil {
		return refused(fault)
	}
	var doomed []types.ManagedObjectReference
	if m.vm.Snapshot != nil {
		for _, root := range m.vm.Snapshot.RootSnapshotList {
			doomed = append(doomed, m.withChildren(root.Snapshot)...)
		}
	}
	if _, fault = s.remove(m, doomed, unconsolidated); fault != nil {
		return refused(fault)
	}
	return taskOf("RemoveAllSnapshots_Task", finishedTask(m.vm.Self, "RemoveAllSnapshots_Task", nil, nil))
}

func (s *site) revertTo(method string, ref types.ManagedObjectReference) *answer {
	snapshot, ok := simulator.Map.Get(ref).(*simulator.VirtualMachineSnapshot)
	if !ok {
		return refused(&types.ManagedObjectNotFound{Obj: ref})
	}
	m, fault := s.machine(snapshot.Vm)
	if fault != nil {
		return refused(fault)
	}
	p := m.points[ref]
	if p == nil {
		return refused(&types.NotFound{})
	}
	if err := m.revert(p); err != nil {
		return refused(&types.SystemError{Reason: err.Error()})
	}
	state := types.VirtualMachinePowerStatePoweredOff
	if item := inTree(m.vm.Snapshot.RootSnapshotList, ref); item != nil {
		state = item.State
	}
	simulator.Map.WithLock(m.vm, func() {
		simulator.Map.Update(m.vm, []types.PropertyChange{
			{Name: "snapshot.currentSnapshot", Val: ref},
			{Name: "runtime.powerState", Val: state},
			{Name: "summary.runtime.powerState", Val: state},
		})
	})
	m.tell()
	return taskOf(method, finishedTask(m.vm.Self, method, nil, nil))
}

// consolidate folds what removed snapshots left behind.
func (s *site) consolidate(request *types.ConsolidateVMDisks_Task) *answer {
	m, fault := s.machine(request.This)
	if fault != nil {
		return refused(fault)
	}
	for _, p := range m.points {
		if p.hidden {
			if err := m.fold(p); err != nil {
				return refused(&types.SystemError{Reason: err.Error()})
			}
		}
	}
	m.needsConsolidation(false)
	m.tell()
	return taskOf("ConsolidateVMDisks_Task", finishedTask(m.vm.Self, "ConsolidateVMDisks_Task", nil, nil))
}

func (m *machine) needsConsolidation(yes bool) {
	simulator.Map.WithLock(m.vm, func() {
		runtime := m.vm.Runtime
		runtime.ConsolidationNeeded = types.NewBool(yes)
		simulator.Map.Update(m.vm, []types.PropertyChange{
			{Name: "runtime", Val: runtime},
			{Name: "summary.runtime", Val: runtime},
		})
	})
}

// withChildren lists a snapshot after all that stand on it.
func (m *machine) withChildren(ref types.ManagedObjectReference) []types.ManagedObjectReference {
	var found []types.ManagedObjectReference
	if item := inTree(m.vm.Snapshot.RootSnapshotList, ref); item != nil {
		for _, child := range item.ChildSnapshotList {
			found = append(found, m.withChildren(child.Snapshot)...)
		}
	}
	return append(found, ref)
}

func inTree(tree []types.VirtualMachineSnapshotTree, ref types.ManagedObjectReference) *types.VirtualMachineSnapshotTree {
	for i := range tree {
		if tree[i].Snapshot == ref {
			return &tree[i]
		}
		if found := inTree(tree[i].ChildSnapshotList, ref); found != nil {
			return found
		}
	}
	return nil
}

// stun is the short halt of a machine in which change tracking takes effect or ends, as was asked before. The snapshot
// that makes it halt was taken before: it knows no changes (VMware KB 1020128).
func (m *machine) stun() {
	asked := m.vm.Config.ChangeTrackingEnabled != nil && *m.vm.Config.ChangeTrackingEnabled
	if asked == m.tracks {
		return
	}
	m.tracks = asked
	for _, d := range m.disks {
		d.tracking = nil
		if asked && !isIndependent(m.modeOf(d.key)) {
			d.tracking = newTracking(d.size)
			d.tracking.starred = m.starred
		}
	}
}

func (m *machine) modeOf(key int32) string {
	for _, device := range disksOf(m.vm.Config.Hardware.Device) {
		if backing, ok := device.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok && device.Key == key {
			return backing.DiskMode
		}
	}
	return ""
}

// reconfigure is the simulator's, but for what it means for change tracking and for disks.
func (s *site) reconfigure(request *types.ReconfigVM_Task) *answer {
	m, fault := s.machine(request.This)
	if fault != nil {
		return refused(fault)
	}
	if on := request.Spec.ChangeTrackingEnabled; on != nil && *on && !m.tracks {
		m.starred = len(m.points) == 0
	}
	done, err := methods.ReconfigVM_Task(context.Background(), s.client, request)
	if err != nil {
		return refused(faultOf(err))
	}
	if err := m.adopt(); err != nil {
		return refused(&types.SystemError{Reason: err.Error()})
	}
	m.tell()
	return taskOf("ReconfigVM_Task", done.Returnval)
}

// power is the simulator's, but for what it means for change tracking.
func (s *site) powerOn(request *types.PowerOnVM_Task) *answer {
	m, fault := s.machine(request.This)
	if fault != nil {
		return refused(fault)
	}
	if s.leased(request.This) {
		return refused(&types.TaskInProgress{Task: types.ManagedObjectReference{Type: "Task", Value: "task-of-lease"}})
	}
	done, err := methods.PowerOnVM_Task(context.Background(), s.client, request)
	if err != nil {
		return refused(faultOf(err))
	}
	if taskFault(done.Returnval) == nil {
		m.stun()
		m.tell()
		m.startTools(s.settings.ToolsRunning)
	}
	return taskOf("PowerOnVM_Task", done.Returnval)
}

// startTools makes the guest's agent answer, or not.
func (m *machine) startTools(running bool) {
	status, old := types.VirtualMachineToolsRunningStatusGuestToolsNotRunning, types.VirtualMachineToolsStatusToolsNotRunning
	if running {
		status, old = types.VirtualMachineToolsRunningStatusGuestToolsRunning, types.VirtualMachineToolsStatusToolsOk
	}
	simulator.Map.WithLock(m.vm, func() {
		simulator.Map.Update(m.vm, []types.PropertyChange{
			{Name: "guest.toolsRunningStatus", Val: string(status)},
			{Name: "guest.toolsStatus", Val: old},
			{Name: "guest.toolsVersionStatus2", Val: string(types.VirtualMachineToolsVersionStatusGuestToolsCurrent)},
		})
	})
}

// destroy removes the machine with its snapshots, files and bytes.
func (s *site) destroy(request *types.Destroy_Task) *answer {
	m, fault := s.machine(request.This)
	if fault != nil {
		return refused(fault)
	}
	done, err := methods.Destroy_Task(context.Background(), s.client, request)
	if err != nil {
		return refused(faultOf(err))
	}
	if taskFault(done.Returnval) == nil {
		m.forget()
		delete(s.machines, request.This.Value)
	}
	return taskOf("Destroy_Task", done.Returnval)
}
