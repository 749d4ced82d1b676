// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// fault is something that goes wrong at the test's wish.
type fault struct {
	On      string  `json:"on"`      // a method of the API, or a verb and the beginning of a path: "GET /nfc/"
	Match   string  `json:"match"`   // which the object's reference or the path must contain
	Skip    int     `json:"skip"`    // calls that go well before
	Times   int     `json:"times"`   // calls it meets; negative: all
	Action  string  `json:"action"`  // one of actions
	Fault   string  `json:"fault"`   // of the API: for actions fault and task
	Missing string  `json:"missing"` // the privilege that a NoPermission is about
	Seconds float64 `json:"seconds"` // for delay
	Status  int     `json:"status"`  // of HTTP: for status
	Bytes   int64   `json:"bytes"`   // for truncate: sent, then the line breaks
	Rate    int64   `json:"rate"`    // for slow: bytes a second
}

var actions = map[string]bool{
	"fault":          true, // the call answers with the fault
	"task":           true, // the call's task ends with the fault, and nothing was done
	"hang":           true, // the call's task runs for ever, and nothing is done
	"delay":          true, // the call takes longer
	"status":         true, // HTTP answers with the status, before the call is looked at
	"ignore":         true, // the call answers well, and nothing was done: a guest that does not shut down
	"drop":           true, // the connection breaks; nothing is done
	"lose_answer":    true, // the call is done, and the connection breaks before the answer
	"truncate":       true, // of a disk's stream
	"slow":           true, // of a disk's stream
	"unconsolidated": true, // the snapshot is removed, its disks stay
}

// struck takes the fault that a call meets, if any.
func (s *site) struck(name, object string) *fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, each := range s.faults {
		if !strings.HasPrefix(name, each.On) || !strings.Contains(object, each.Match) {
			continue
		}
		if !strings.Contains(each.On, " ") && name != each.On {
			continue
		}
		if each.Skip > 0 {
			each.Skip--
			continue
		}
		met := *each
		if each.Times--; each.Times == 0 {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
		}
		return &met
	}
	return nil
}

// strike does what a fault does before a method runs. True: the method shall not run.
func (s *site) strike(f *fault, w http.ResponseWriter, this types.ManagedObjectReference, name string) (bool, string) {
	switch f.Action {
	case "delay":
		time.Sleep(seconds(f.Seconds))
		return false, ""
	case "status":
		http.Error(w, http.StatusText(f.Status), f.Status)
		return true, http.StatusText(f.Status)
	case "drop":
		hangUp(w)
		return true, "dropped"
	case "fault", "task":
		meant, err := newFault(f.Fault)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return true, err.Error()
		}
		aboutObject(meant, this)
		if denied, ok := meant.(*types.NoPermission); ok {
			denied.PrivilegeId = f.Missing
		}
		if f.Action == "fault" {
			writeAnswer(w, refused(meant))
		} else {
			writeAnswer(w, taskOf(name, finishedTask(this, name, nil, meant)))
		}
		return true, f.Fault
	case "ignore":
		writeAnswer(w, &answer{name: name + "Response", response: &struct{}{}})
		return true, "ignored"
	case "hang":
		writeAnswer(w, taskOf(name, s.hangingTask(this, name)))
		return true, "hangs"
	}
	return false, ""
}

// aboutObject fills in what faults like NoPermission are about: a reference to nothing is more than a client can read.
func aboutObject(fault types.BaseMethodFault, this types.ManagedObjectReference) {
	value := reflect.ValueOf(fault).Elem()
	for _, field := range reflect.VisibleFields(value.Type()) {
		if field.Type == reflect.TypeOf(this) {
			value.FieldByIndex(field.Index).Set(reflect.ValueOf(this))
		}
	}
}

// hangUp breaks the connection; what was written before arrives.
func hangUp(w http.ResponseWriter) {
	if flusher, ok := w.(http.Flusher); ok {
		flusher.Flush()
	}
	if hijacker, ok := w.(http.Hijacker); ok {
		if connection, _, err := hijacker.Hijack(); err == nil {
			_ = connection.Close()
			return
		}
	}
	panic(http.ErrAbortHandler)
}

func seconds(number float64) time.Duration { return time.Duration(number * float64(time.Second)) }
