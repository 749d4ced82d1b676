// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

const (
	nfcPath      = "/nfc/"
	streamType   = "application/x-vnd.vmware-streamVmdk"
	streamOption = "subformat=streamOptimized,adapter_type=lsilogic"
	copyBuffer   = 64 << 10
)

// serveTransfer serves the bytes of leases. The token in the address is all the right one needs, as on ESXi.
func (s *site) serveTransfer(w http.ResponseWriter, r *http.Request) {
	made := call{Method: r.Method + " " + nfcPath, Object: r.URL.Path, Argument: r.Header.Get("Range"), User: r.UserAgent()}
	made.Ended, made.Bytes = s.transfer(w, r)
	s.note(made)
}

func (s *site) transfer(w http.ResponseWriter, r *http.Request) (string, int64) {
	met := s.struck(r.Method+" "+r.URL.Path, r.URL.Path)
	if met != nil {
		if done, ended := s.strike(met, w, types.ManagedObjectReference{}, ""); done {
			return ended, 0
		}
	}
	words := strings.SplitN(strings.TrimPrefix(r.URL.Path, nfcPath), "/", 2)
	s.mu.Lock()
	held := s.leases[words[0]]
	var file *leased
	if held != nil && held.open() && held.State == types.HttpNfcLeaseStateReady && len(words) == 2 {
		file = held.files[words[1]]
	}
	needsLength := s.settings.UploadNeedsLength
	s.mu.Unlock()
	switch {
	case file == nil:
		http.NotFound(w, r)
		return "404", 0
	case r.Method == http.MethodGet && !held.imports:
		return held.send(w, file, met)
	case (r.Method == http.MethodPost || r.Method == http.MethodPut) && held.imports:
		if needsLength && r.ContentLength < 0 {
			http.Error(w, "how long?", http.StatusLengthRequired)
			return "411", 0
		}
		return held.receive(w, r, file, met)
	}
	http.Error(w, "not with this lease", http.StatusMethodNotAllowed)
	return "405", 0
}

// send streams a disk, as streamOptimized VMDK without a length, or another file as it is.
func (l *lease) send(w http.ResponseWriter, file *leased, met *fault) (string, int64) {
	source, err := l.source(file)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return err.Error(), 0
	}
	defer source.Close()
	if file.disk {
		w.Header().Set("Content-Type", streamType)
	}
	w.WriteHeader(http.StatusOK) // without a length: the body comes in chunks
	sum := sha1.New()
	sent, err := io.Copy(io.MultiWriter(w, sum), &burdened{source: source, met: met, alive: l.alive})
	if err != nil {
		hangUp(w)
		return err.Error(), sent
	}
	l.site.mu.Lock()
	defer l.site.mu.Unlock()
	file.sha1, file.sent = hex.EncodeToString(sum.Sum(nil)), sent
	return "", sent
}

// source is what a file of a lease is sent from.
func (l *lease) source(file *leased) (io.ReadCloser, error) {
	if !file.disk {
		return os.Open(file.path)
	}
	l.site.mu.Lock()
	writer := l.site.settings.Stream
	l.site.mu.Unlock()
	if writer == "qemu" {
		return qemuStream(l.site.private, file.path)
	}
	reader, pipe := io.Pipe()
	go func() { _ = pipe.CloseWithError(writeStream(pipe, file.path, file.capacity)) }()
	return reader, nil
}

// qemuStream is the stream as qemu-img writes it: tables first, no markers and no footer.
func qemuStream(folder, raw string) (io.ReadCloser, error) {
	made, err := os.CreateTemp(folder, "stream-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(made.Name()) // who reads it goes on
	if err := qemuImg("convert", "-f", "raw", "-O", "vmdk", "-o", streamOption, raw, made.Name()); err != nil {
		return nil, err
	}
	return os.Open(made.Name())
}

// receive takes a file; a disk must be what qemu-img reads, and as large as the device.
func (l *lease) receive(w http.ResponseWriter, r *http.Request, file *leased, met *fault) (string, int64) {
	if file.disk && r.Header.Get("Content-Type") != streamType {
		http.Error(w, "a disk must be "+streamType, http.StatusUnsupportedMediaType)
		return "415", 0
	}
	stored, err := os.CreateTemp(l.site.private, "upload-")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return err.Error(), 0
	}
	defer os.Remove(stored.Name())
	sum := sha1.New()
	got, err := io.Copy(io.MultiWriter(stored, sum), &burdened{source: r.Body, met: met, alive: l.alive})
	_ = stored.Close()
	if err == nil {
		err = l.place(stored.Name(), file)
	}
	l.site.mu.Lock()
	defer l.site.mu.Unlock()
	if err != nil {
		l.end("failed: "+err.Error(), types.HttpNfcLeaseStateError, &types.SystemError{Reason: err.Error()})
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return err.Error(), got
	}
	file.sha1, file.sent = hex.EncodeToString(sum.Sum(nil)), got
	w.WriteHeader(http.StatusCreated)
	return "", got
}

// place puts an upload where its device looks for it.
func (l *lease) place(stored string, file *leased) error {
	if !file.disk {
		return copyFile(stored, file.path)
	}
	said, err := exec.Command("qemu-img", "info", "--output=json", "-f", "vmdk", stored).CombinedOutput()
	if err != nil {
		return fmt.Errorf("no VMDK: %s", said)
	}
	var told struct {
		Size int64 `json:"virtual-size"`
		More struct {
			Data struct {
				Kind string `json:"create-type"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(said, &told); err != nil {
		return err
	}
	if told.More.Data.Kind != "streamOptimized" {
		return fmt.Errorf("a VMDK of kind %s", told.More.Data.Kind)
	}
	if told.Size != file.capacity {
		return fmt.Errorf("a VMDK of %d bytes for a disk of %d", told.Size, file.capacity)
	}
	return qemuImg("convert", "-f", "vmdk", "-O", "raw", stored, file.path)
}

func (l *lease) alive() bool {
	l.site.mu.Lock()
	defer l.site.mu.Unlock()
	return l.open()
}

func qemuImg(words ...string) error {
	if said, err := exec.Command("qemu-img", words...).CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img %s: %s", words[0], strings.TrimSpace(string(said)))
	}
	return nil
}

// burdened is a stream that a fault slows down or breaks off, and that ends with its lease.
type burdened struct {
	source io.Reader
	met    *fault
	alive  func() bool
	passed int64
}

func (b *burdened) Read(data []byte) (int, error) {
	if !b.alive() {
		return 0, fmt.Errorf("the lease ended")
	}
	if len(data) > copyBuffer {
		data = data[:copyBuffer]
	}
	if b.met != nil && b.met.Action == "truncate" {
		if left := b.met.Bytes - b.passed; left <= 0 {
			return 0, fmt.Errorf("broken off after %d bytes", b.passed)
		} else if int64(len(data)) > left {
			data = data[:left]
		}
	}
	n, err := b.source.Read(data)
	b.passed += int64(n)
	if b.met != nil && b.met.Action == "slow" && b.met.Rate > 0 {
		time.Sleep(time.Duration(int64(n)) * time.Second / time.Duration(b.met.Rate))
	}
	return n, err
}
