// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// control is the door for tests: verbs by POST, JSON in and out, on loopback only.
type control struct {
	site  *site
	verbs map[string]func(r *http.Request) (interface{}, error)
}

func newControl(s *site) *control {
	c := &control{site: s}
	c.verbs = map[string]func(*http.Request) (interface{}, error){
		"/ready":         func(*http.Request) (interface{}, error) { return s.about(), nil },
		"/machine":       c.machine,
		"/write":         c.write,
		"/settings":      c.settings,
		"/fault":         c.fault,
		"/heal":          func(*http.Request) (interface{}, error) { s.faults = nil; return nil, nil },
		"/expire":        func(*http.Request) (interface{}, error) { s.expireSessions(); return nil, nil },
		"/lapse":         func(*http.Request) (interface{}, error) { s.lapse(); return nil, nil },
		"/restart":       func(*http.Request) (interface{}, error) { s.restart(); return nil, nil },
		"/datastore":     c.datastore,
		"/reset":         c.reset,
		"/consolidation": c.consolidation,
		"/calls":         func(*http.Request) (interface{}, error) { return append([]call{}, s.calls...), nil },
		"/forget":        func(*http.Request) (interface{}, error) { s.calls = nil; return nil, nil },
		"/leftovers":     func(*http.Request) (interface{}, error) { return s.left(), nil },
	}
	return c
}

func (c *control) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/disk" {
		c.disk(w, r)
		return
	}
	verb, ok := c.verbs[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.site.mu.Lock()
	defer c.site.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(body))
	result, err := attempt(func() (interface{}, error) { return verb(r) })
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(result)
}

// attempt tells a test what the simulator broke off over.
func attempt(verb func() (interface{}, error)) (result interface{}, err error) {
	defer func() {
		if what := recover(); what != nil {
			err = fmt.Errorf("the simulator broke off: %v\n%s", what, debug.Stack())
		}
	}()
	return verb()
}

// about names what a client needs before it looks around.
func (s *site) about() map[string]interface{} {
	told := map[string]interface{}{"serving": s.serving.name, "thumbprint": s.serving.thumbprint}
	for _, kind := range []string{"Datacenter", "Datastore", "HostSystem", "ClusterComputeResource", "Network"} {
		names := []string{}
		for _, entity := range simulator.Map.All(kind) {
			names = append(names, nameOf(entity))
		}
		told[kind] = names
	}
	return told
}

func decode(r *http.Request, into interface{}) error {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

func (c *control) machine(r *http.Request) (interface{}, error) {
	spec := newSeed()
	if err := decode(r, spec); err != nil {
		return nil, err
	}
	return c.site.seed(spec)
}

func (c *control) settings(r *http.Request) (interface{}, error) {
	return c.site.settings, decode(r, &c.site.settings)
}

func (c *control) fault(r *http.Request) (interface{}, error) {
	made := &fault{Times: 1}
	if err := decode(r, made); err != nil {
		return nil, err
	}
	if !actions[made.Action] {
		return nil, fmt.Errorf("no such action: %q", made.Action)
	}
	if made.Action == "fault" || made.Action == "task" {
		if _, err := newFault(made.Fault); err != nil {
			return nil, err
		}
	}
	c.site.faults = append(c.site.faults, made)
	return nil, nil
}

// datastore changes what one is made of, and how much room it has.
func (c *control) datastore(r *http.Request) (interface{}, error) {
	var wanted struct {
		Name string `json:"name"`
		Type string `json:"type"`
		Free int64  `json:"free"`
	}
	if err := decode(r, &wanted); err != nil {
		return nil, err
	}
	for _, entity := range simulator.Map.All("Datastore") {
		found := entity.(*simulator.Datastore)
		if found.Name != wanted.Name {
			continue
		}
		simulator.Map.WithLock(found, func() {
			summary := found.Summary
			summary.Type = wanted.Type
			summary.FreeSpace = wanted.Free
			simulator.Map.Update(found, []types.PropertyChange{{Name: "summary", Val: summary}})
			found.Info.GetDatastoreInfo().FreeSpace = wanted.Free
		})
		return nil, nil
	}
	return nil, fmt.Errorf("there is no datastore %q", wanted.Name)
}

// reset ends what was known of changes, as a host does that lost its power.
func (c *control) reset(r *http.Request) (interface{}, error) {
	m, err := c.asked(r)
	if err != nil {
		return nil, err
	}
	for _, d := range m.disks {
		if d.tracking != nil {
			d.tracking = newTracking(d.size)
		}
	}
	m.tell()
	return nil, nil
}

func (c *control) consolidation(r *http.Request) (interface{}, error) {
	m, err := c.asked(r)
	if err == nil {
		m.needsConsolidation(true)
	}
	return nil, err
}

func (c *control) write(r *http.Request) (interface{}, error) {
	d, err := c.askedDisk(r)
	if err != nil {
		return nil, err
	}
	offset, err := strconv.ParseInt(r.URL.Query().Get("offset"), 10, 64)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	return nil, d.write(data, offset)
}

// disk gives what the guest sees, all of it.
func (c *control) disk(w http.ResponseWriter, r *http.Request) {
	c.site.mu.Lock()
	defer c.site.mu.Unlock()
	d, err := c.askedDisk(r)
	var file *os.File
	if err == nil {
		file, err = os.Open(d.current)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer file.Close()
	_, _ = io.Copy(w, file)
}

// asked finds the machine that a request means, by its name or by the value of its reference.
func (c *control) asked(r *http.Request) (*machine, error) {
	name := r.URL.Query().Get("vm")
	for _, entity := range simulator.Map.All("VirtualMachine") {
		if vm := entity.(*simulator.VirtualMachine); vm.Name == name || vm.Self.Value == name {
			m, fault := c.site.machine(vm.Self)
			if fault != nil {
				return nil, fmt.Errorf("%s", faultName(fault))
			}
			return m, nil
		}
	}
	return nil, fmt.Errorf("there is no machine %q", name)
}

func (c *control) askedDisk(r *http.Request) (*disk, error) {
	m, err := c.asked(r)
	if err != nil {
		return nil, err
	}
	index, err := strconv.Atoi(r.URL.Query().Get("disk"))
	if err != nil {
		return nil, err
	}
	return m.diskAt(index)
}
