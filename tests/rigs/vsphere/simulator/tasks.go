// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"sort"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// hangingTask makes a task that runs and never ends.
func (s *site) hangingTask(entity types.ManagedObjectReference, name string) types.ManagedObjectReference {
	task := simulator.CreateTask(entity, taskName(name), nil)
	simulator.Map.Update(task, []types.PropertyChange{
		{Name: "info.startTime", Val: time.Now()},
		{Name: "info.state", Val: types.TaskInfoStateRunning},
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hanging = append(s.hanging, task)
	return task.Self
}

// taskName is how the simulator wants a method's name, to make "CreateSnapshot_Task" and "createSnapshot" of it.
func taskName(method string) string {
	return strings.ToLower(method[:1]) + strings.Replace(method[1:], "_Task", "Task", 1)
}

func (s *site) runningTasks() []string {
	names := []string{}
	for _, task := range s.hanging {
		if task.Info.State == types.TaskInfoStateRunning {
			names = append(names, task.Info.Name)
		}
	}
	sort.Strings(names)
	return names
}

// cancelTask ends a task that hangs. The simulator's own are over before a client could.
func (s *site) cancelTask(request *types.CancelTask) *answer {
	task, ok := simulator.Map.Get(request.This).(*simulator.Task)
	if !ok || task.Info.State != types.TaskInfoStateRunning {
		return refused(&types.InvalidState{})
	}
	breakOff(task, &types.RequestCanceled{})
	return answered(&types.CancelTaskResponse{})
}

func breakOff(task *simulator.Task, fault types.BaseMethodFault) {
	if task.Info.State != types.TaskInfoStateRunning {
		return
	}
	simulator.Map.Update(task, []types.PropertyChange{
		{Name: "info.completeTime", Val: time.Now()},
		{Name: "info.cancelled", Val: true},
		{Name: "info.state", Val: types.TaskInfoStateError},
		{Name: "info.error", Val: types.LocalizedMethodFault{Fault: fault, LocalizedMessage: faultName(fault)}},
	})
}
