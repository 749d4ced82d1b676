// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"fmt"
	"sort"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const expiryTick = 50 * time.Millisecond

// lease is the time in which disks may be read or written by HTTP. The simulator serves its properties and methods.
type lease struct {
	mo.HttpNfcLease

	site    *site
	token   string
	vm      types.ManagedObjectReference
	imports bool
	files   map[string]*leased // by the name in the address
	heard   time.Time          // the client's last word
	told    []int              // percentages, in order
	ended   string             // how; "" while it is open
}

// leased is one file of a lease.
type leased struct {
	key      string // of the device, as HttpNfcLeaseDeviceUrl has it
	path     string // of the bytes that are read or written
	disk     bool
	capacity int64
	sent     int64 // bytes of the stream; with sha1 known only when it went through whole
	sha1     string
}

// newLease makes one that is about to be ready. Files come in the order of keys in `urls`.
func (s *site) newLease(vm types.ManagedObjectReference, imports bool, urls []types.HttpNfcLeaseDeviceUrl, files map[string]*leased) *lease {
	made := &lease{site: s, token: uuid.New().String(), vm: vm, imports: imports, files: files, heard: time.Now()}
	made.Self = types.ManagedObjectReference{Type: "HttpNfcLease", Value: "lease-" + made.token}
	made.State = types.HttpNfcLeaseStateInitializing
	made.Mode = string(types.HttpNfcLeaseModePushOrGet)
	info := &types.HttpNfcLeaseInfo{Lease: made.Self, Entity: vm, LeaseTimeout: int32(s.settings.LeaseTimeout + 0.999)}
	for _, url := range urls {
		file := files[url.TargetId]
		url.Url = fmt.Sprintf("https://%s%s%s/%s", s.hostInLeases(), nfcPath, made.token, url.TargetId)
		url.Disk = types.NewBool(file.disk)
		if s.settings.Thumbprints {
			url.SslThumbprint = s.serving.thumbprint
		}
		if file.disk {
			info.TotalDiskCapacityInKB += file.capacity / 1024
		}
		info.DeviceUrl = append(info.DeviceUrl, url)
	}
	s.leases[made.token] = made
	simulator.Map.Put(made)
	time.AfterFunc(seconds(s.settings.LeaseStart), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if made.ended == "" {
			simulator.Map.Update(made, []types.PropertyChange{
				{Name: "info", Val: info},
				{Name: "initializeProgress", Val: int32(100)},
				{Name: "state", Val: types.HttpNfcLeaseStateReady},
			})
		}
	})
	return made
}

func (s *site) hostInLeases() string {
	if s.settings.StarHosts {
		return "*"
	}
	if s.settings.HostName != "" {
		return s.settings.HostName
	}
	return s.serving.name
}

func (l *lease) open() bool { return l.ended == "" }

func (l *lease) outcome() string {
	if l.open() {
		return "open"
	}
	return l.ended
}

// end closes a lease; what was to be imported goes, unless all is well.
func (l *lease) end(how string, state types.HttpNfcLeaseState, fault types.BaseMethodFault) {
	if !l.open() {
		return
	}
	l.ended = how
	changes := []types.PropertyChange{{Name: "state", Val: state}}
	if fault != nil {
		meant := types.LocalizedMethodFault{Fault: fault, LocalizedMessage: how}
		changes = append(changes, types.PropertyChange{Name: "error", Val: meant})
	}
	simulator.Map.Update(l, changes)
	if l.imports && state != types.HttpNfcLeaseStateDone {
		l.site.destroy(&types.Destroy_Task{This: l.vm})
	}
}

// expireLeases ends those whose clients fell silent.
func (s *site) expireLeases() {
	for range time.Tick(expiryTick) {
		s.mu.Lock()
		for _, each := range s.leases {
			if each.open() && time.Since(each.heard) > seconds(s.settings.LeaseTimeout) {
				each.end("expired", types.HttpNfcLeaseStateError, &types.Timedout{})
			}
		}
		s.mu.Unlock()
	}
}

// lapse is what happens to the leases of clients that died, once their time is over.
func (s *site) lapse() {
	for _, each := range s.leases {
		each.end("expired", types.HttpNfcLeaseStateError, &types.Timedout{})
	}
}

// leased tells whether a lease holds a machine: nobody can start it then (vSphere API reference, HttpNfcLease).
func (s *site) leased(vm types.ManagedObjectReference) bool {
	for _, each := range s.leases {
		if each.open() && each.vm == vm {
			return true
		}
	}
	return false
}

func (l *lease) HttpNfcLeaseProgress(request *types.HttpNfcLeaseProgress) soap.HasFault {
	l.site.mu.Lock()
	defer l.site.mu.Unlock()
	body := new(methods.HttpNfcLeaseProgressBody)
	if !l.open() {
		body.Fault_ = simulator.Fault("", &types.Timedout{})
		return body
	}
	l.heard = time.Now()
	l.told = append(l.told, int(request.Percent))
	simulator.Map.Update(l, []types.PropertyChange{{Name: "transferProgress", Val: request.Percent}})
	body.Res = new(types.HttpNfcLeaseProgressResponse)
	return body
}

func (l *lease) HttpNfcLeaseComplete(*types.HttpNfcLeaseComplete) soap.HasFault {
	l.site.mu.Lock()
	defer l.site.mu.Unlock()
	body := new(methods.HttpNfcLeaseCompleteBody)
	if !l.open() {
		body.Fault_ = simulator.Fault("", &types.InvalidState{})
		return body
	}
	l.end("completed", types.HttpNfcLeaseStateDone, nil)
	body.Res = new(types.HttpNfcLeaseCompleteResponse)
	return body
}

func (l *lease) HttpNfcLeaseAbort(*types.HttpNfcLeaseAbort) soap.HasFault {
	l.site.mu.Lock()
	defer l.site.mu.Unlock()
	body := new(methods.HttpNfcLeaseAbortBody)
	if !l.open() {
		body.Fault_ = simulator.Fault("", &types.InvalidState{})
		return body
	}
	l.end("aborted", types.HttpNfcLeaseStateError, &types.RequestCanceled{})
	body.Res = new(types.HttpNfcLeaseAbortResponse)
	return body
}

// HttpNfcLeaseGetManifest tells the SHA-1 of each stream that went through whole.
func (l *lease) HttpNfcLeaseGetManifest(*types.HttpNfcLeaseGetManifest) soap.HasFault {
	l.site.mu.Lock()
	defer l.site.mu.Unlock()
	response := new(types.HttpNfcLeaseGetManifestResponse)
	for _, file := range l.files {
		if file.sha1 != "" {
			entry := types.HttpNfcLeaseManifestEntry{Key: file.key, Sha1: file.sha1, Size: file.sent, Disk: file.disk}
			if file.disk {
				entry.Capacity = file.capacity
			}
			response.Returnval = append(response.Returnval, entry)
		}
	}
	sort.Slice(response.Returnval, func(i, j int) bool { return response.Returnval[i].Key < response.Returnval[j].Key })
	return &methods.HttpNfcLeaseGetManifestBody{Res: response}
}
