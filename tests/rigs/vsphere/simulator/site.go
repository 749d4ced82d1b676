// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"os"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

// door is where disks are served: what leases tell their clients.
type door struct {
	name       string // host:port
	thumbprint string
}

// settings are what a test may change while the rig runs. Durations are seconds.
type settings struct {
	LeaseTimeout      float64 `json:"lease_timeout"`       // without a word from the client
	LeaseStart        float64 `json:"lease_start"`         // until a lease is ready
	StarHosts         bool    `json:"star_hosts"`          // leases name no host, as those of ESXi
	HostName          string  `json:"host_name"`           // leases name this one, whatever serves
	Thumbprints       bool    `json:"thumbprints"`         // leases tell the certificate of who serves
	Stream            string  `json:"stream"`              // who writes the disks of leases: esxi, qemu
	Page              int     `json:"page"`                // changed areas in one answer
	StarIsWhole       bool    `json:"star_is_whole"`       // `*` gives the whole disk, as on NFS
	LockedFlats       string  `json:"locked_flats"`        // never, active (what the guest writes), running (all of a running machine)
	FolderRanges      bool    `json:"folder_ranges"`       // /folder answers to Range
	CallsPerSession   int     `json:"calls_per_session"`   // 0: no end
	UploadNeedsLength bool    `json:"upload_needs_length"` // a chunked upload is refused
	TakesNvram        bool    `json:"takes_nvram"`         // imports may bring the firmware's variables
	ToolsRunning      bool    `json:"tools_running"`       // in machines that are switched on from now on

	Denied []string `json:"denied"` // privileges that the user lacks, everywhere
}

func defaults(o options) settings {
	return settings{
		LeaseTimeout: 300,
		LeaseStart:   0.02,
		StarHosts:    o.esxi,
		Thumbprints:  !o.esxi,
		Stream:       "esxi",
		Page:         4,
		LockedFlats:  "active",
		FolderRanges: true,
		TakesNvram:   true,
		ToolsRunning: true,
	}
}

// site is all that the simulator of govmomi does not know.
type site struct {
	mu       sync.Mutex // of all that follows; taken before any lock of the simulator, never after
	client   *vim25.Client
	private  string // folder of bytes that no datastore shows
	serving  door
	options  options
	settings settings
	machines map[string]*machine // by the value of their reference
	leases   map[string]*lease   // by the token in their addresses
	sessions map[string]*session // by cookie
	hanging  []*simulator.Task   // at which a client may wait for ever
	faults   []*fault
	calls    []call
}

// restart is what clients see of a vCenter that starts again: nobody is logged in, leases and tasks are over.
func (s *site) restart() {
	for _, each := range s.sessions {
		each.expired = true
	}
	for _, each := range s.leases {
		each.end("restart", types.HttpNfcLeaseStateError, &types.SystemError{Reason: "vCenter started again"})
	}
	for _, each := range s.hanging {
		breakOff(each, &types.SystemError{Reason: "vCenter started again"})
	}
}

func newSite(service *simulator.Service, o options) (*site, error) {
	private, err := os.MkdirTemp("", "private-")
	if err != nil {
		return nil, err
	}
	client, err := vim25.NewClient(context.Background(), service)
	if err != nil {
		return nil, err
	}
	return &site{
		client:   client,
		private:  private,
		options:  o,
		settings: defaults(o),
		machines: map[string]*machine{},
		leases:   map[string]*lease{},
		sessions: map[string]*session{},
	}, nil
}
