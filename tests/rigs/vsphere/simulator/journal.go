// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"reflect"
	"sort"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// call is one thing a client asked for.
type call struct {
	At       float64 `json:"at"`       // seconds since 1970
	Method   string  `json:"method"`   // of the API, or of HTTP with the beginning of the path: "GET /nfc/"
	Object   string  `json:"object"`   // the value of a reference, or a path
	Argument string  `json:"argument"` // a name in the request, or a Range
	Options  string  `json:"options"`  // what the request switches on: "memory quiesce"
	Ended    string  `json:"ended"`    // "" is well, else a fault, a status or how the line broke
	Bytes    int64   `json:"bytes"`    // of a body that was sent or received
	User     string  `json:"user"`     // the client's User-Agent
	Version  string  `json:"version"`  // of the API that the client speaks: "vim25/6.5"
}

// leftovers are what stays in the place of a customer after our work.
type leftovers struct {
	Machines       []string          `json:"machines"`
	Snapshots      map[string]string `json:"snapshots"` // name of a snapshot by "machine/reference"
	Leases         map[string]string `json:"leases"`    // state of those that are open, by reference
	Sessions       int               `json:"sessions"`  // neither closed nor expired
	Consolidation  []string          `json:"consolidation"`
	RunningTasks   []string          `json:"running_tasks"`
	Files          []string          `json:"files"`           // folders of datastores
	ChangeTracking []string          `json:"change_tracking"` // machines in which it is on
	LeasesOverall  map[string]string `json:"leases_overall"`  // how each lease ever opened ended
	LeaseProgress  map[string][]int  `json:"lease_progress"`  // what the client told, in order
}

func (s *site) note(made call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	made.At = float64(time.Now().UnixNano()) / float64(time.Second)
	s.calls = append(s.calls, made)
}

// argumentOf is what tells two calls of a method apart: a name, an identifier of changes, or nothing.
func argumentOf(body interface{}) string {
	value := reflect.ValueOf(body)
	if value.Kind() != reflect.Ptr || value.IsNil() {
		return ""
	}
	for _, name := range []string{"Name", "ChangeId", "UserName", "Percent"} {
		if field := value.Elem().FieldByName(name); field.IsValid() && field.Kind() == reflect.String {
			return field.String()
		}
	}
	return ""
}

// optionsOf names the booleans of a request that are true.
func optionsOf(body interface{}) string {
	value := reflect.ValueOf(body)
	if value.Kind() != reflect.Ptr || value.IsNil() || value.Elem().Kind() != reflect.Struct {
		return ""
	}
	var names []string
	for _, field := range reflect.VisibleFields(value.Elem().Type()) {
		set := value.Elem().FieldByIndex(field.Index)
		switch option := set.Interface().(type) {
		case bool:
			if option {
				names = append(names, strings.ToLower(field.Name))
			}
		case *bool:
			if option != nil && *option {
				names = append(names, strings.ToLower(field.Name))
			}
		case types.BaseVirtualMachineGuestQuiesceSpec:
			names = append(names, "quiesce")
		}
	}
	sort.Strings(names)
	return strings.Join(names, " ")
}

func (s *site) left() leftovers {
	left := leftovers{
		Snapshots:     map[string]string{},
		Leases:        map[string]string{},
		LeasesOverall: map[string]string{},
		LeaseProgress: map[string][]int{},
	}
	for _, entity := range simulator.Map.All("VirtualMachine") {
		vm := entity.(*simulator.VirtualMachine)
		left.Machines = append(left.Machines, vm.Name)
		if vm.Snapshot != nil {
			nameSnapshots(left.Snapshots, vm.Name, vm.Snapshot.RootSnapshotList)
		}
		if yes := vm.Runtime.ConsolidationNeeded; yes != nil && *yes {
			left.Consolidation = append(left.Consolidation, vm.Name)
		}
		if yes := vm.Config.ChangeTrackingEnabled; yes != nil && *yes {
			left.ChangeTracking = append(left.ChangeTracking, vm.Name)
		}
	}
	for _, each := range s.leases {
		left.LeasesOverall[each.Self.Value] = each.outcome()
		left.LeaseProgress[each.Self.Value] = each.told
		if each.open() {
			left.Leases[each.Self.Value] = string(each.State)
		}
	}
	for _, each := range s.sessions {
		if !each.expired {
			left.Sessions++
		}
	}
	left.RunningTasks = s.runningTasks()
	left.Files = datastoreFolders()
	for _, names := range [][]string{left.Machines, left.Consolidation, left.ChangeTracking} {
		sort.Strings(names)
	}
	return left
}

func nameSnapshots(into map[string]string, machine string, tree []types.VirtualMachineSnapshotTree) {
	for _, each := range tree {
		into[strings.Join([]string{machine, each.Snapshot.Value}, "/")] = each.Name
		nameSnapshots(into, machine, each.ChildSnapshotList)
	}
}
