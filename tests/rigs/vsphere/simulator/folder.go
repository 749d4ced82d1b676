// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

const folderPath = "/folder/"

// serveFolder serves the files of datastores, to those who are logged in or bring their password.
func (s *site) serveFolder(w http.ResponseWriter, r *http.Request) {
	made := call{Method: r.Method + " " + folderPath, Object: r.URL.Path, Argument: r.Header.Get("Range"), User: r.UserAgent()}
	made.Ended, made.Bytes = s.folder(w, r)
	s.note(made)
}

func (s *site) folder(w http.ResponseWriter, r *http.Request) (string, int64) {
	met := s.struck(r.Method+" "+r.URL.Path, r.URL.Path)
	if met != nil {
		if done, ended := s.strike(met, w, types.ManagedObjectReference{}, ""); done {
			return ended, 0
		}
	}
	if name, password, given := r.BasicAuth(); given {
		if name != s.options.user || password != s.options.password {
			return refuse(w, http.StatusUnauthorized)
		}
	} else if !s.enter(r) {
		return refuse(w, http.StatusUnauthorized)
	}
	if !knownDatacenter(r.URL.Query().Get("dcPath")) {
		return refuse(w, http.StatusNotFound)
	}
	root, err := datastoreFolder(r.URL.Query().Get("dsName"))
	if err != nil {
		return refuse(w, http.StatusNotFound)
	}
	if objectBased(r.URL.Query().Get("dsName")) && strings.HasSuffix(r.URL.Path, "-flat.vmdk") {
		return refuse(w, http.StatusNotFound)
	}
	file := filepath.Join(root, path.Clean("/"+strings.TrimPrefix(r.URL.Path, folderPath)))
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		if s.locked(file) {
			return refuse(w, http.StatusInternalServerError)
		}
		return s.sendFile(w, r, file, met)
	case http.MethodPut:
		if s.locked(file) {
			return refuse(w, http.StatusInternalServerError)
		}
		return storeFile(w, r, file)
	case http.MethodDelete:
		if err := os.Remove(file); err != nil {
			return refuse(w, http.StatusNotFound)
		}
		w.WriteHeader(http.StatusOK)
		return "", 0
	}
	return refuse(w, http.StatusMethodNotAllowed)
}

func refuse(w http.ResponseWriter, status int) (string, int64) {
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="datastore"`)
	}
	http.Error(w, http.StatusText(status), status)
	return http.StatusText(status), 0
}

// objectBased tells of datastores that keep disks as objects: there are no flat files in them.
func objectBased(name string) bool {
	for _, entity := range simulator.Map.All("Datastore") {
		if store := entity.(*simulator.Datastore); store.Name == name {
			return store.Summary.Type == "vsan" || store.Summary.Type == "VVOL"
		}
	}
	return false
}

// knownDatacenter takes the path of a datacenter in the inventory, with or without the folders above it.
func knownDatacenter(asked string) bool {
	for _, entity := range simulator.Map.All("Datacenter") {
		if name := entity.Entity().Name; name == path.Base(asked) {
			return true
		}
	}
	return false
}

// locked tells whether a host holds the file of a running machine.
func (s *site) locked(file string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.machines {
		if m.vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
			continue
		}
		for _, d := range m.disks {
			if d.base != file {
				continue
			}
			return s.settings.LockedFlats == "running" || (s.settings.LockedFlats == "active" && d.current == d.base)
		}
	}
	return false
}

// counted is a response of which the length is known afterwards.
type counted struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (c *counted) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *counted) Write(data []byte) (int, error) {
	n, err := c.ResponseWriter.Write(data)
	c.bytes += int64(n)
	return n, err
}

func (s *site) sendFile(w http.ResponseWriter, r *http.Request, file string, met *fault) (string, int64) {
	opened, err := os.Open(file)
	if err != nil {
		return refuse(w, http.StatusNotFound)
	}
	defer opened.Close()
	status, err := opened.Stat()
	if err != nil || status.IsDir() {
		return refuse(w, http.StatusNotFound)
	}
	s.mu.Lock()
	if !s.settings.FolderRanges {
		r.Header.Del("Range")
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/octet-stream")
	out := &counted{ResponseWriter: w, status: http.StatusOK}
	source := &seekable{burdened{source: opened, met: met, alive: func() bool { return true }}, opened}
	http.ServeContent(out, r, "", status.ModTime(), source)
	if met != nil && met.Action == "truncate" && source.passed >= met.Bytes {
		hangUp(w)
		return "broken off", out.bytes
	}
	if out.status >= http.StatusBadRequest {
		return http.StatusText(out.status), out.bytes
	}
	return "", out.bytes
}

type seekable struct {
	burdened
	file *os.File
}

func (s *seekable) Seek(offset int64, whence int) (int64, error) { return s.file.Seek(offset, whence) }

// storeFile writes a file in place, so that those who hold it open go on with the same.
func storeFile(w http.ResponseWriter, r *http.Request, file string) (string, int64) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return refuse(w, http.StatusInternalServerError)
	}
	opened, err := os.Create(file)
	if err != nil {
		return refuse(w, http.StatusInternalServerError)
	}
	defer opened.Close()
	got, err := io.Copy(opened, r.Body)
	if err != nil {
		return refuse(w, http.StatusInternalServerError)
	}
	w.WriteHeader(http.StatusCreated)
	return "", got
}
