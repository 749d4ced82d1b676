// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// front stands before the simulator of govmomi: it answers what that one cannot, and hands on the rest.
type front struct {
	site      *site
	simulator http.Handler
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, nfcPath):
		f.site.serveTransfer(w, r)
	case strings.HasPrefix(r.URL.Path, folderPath):
		f.site.serveFolder(w, r)
	case strings.HasPrefix(r.URL.Path, "/sdk") && r.Method == http.MethodPost:
		f.serveCall(w, r)
	default:
		f.simulator.ServeHTTP(w, r)
	}
}

func (f *front) serveCall(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	method, err := simulator.UnmarshalBody(types.TypeFunc(), body)
	if err != nil {
		f.simulator.ServeHTTP(w, r)
		return
	}
	made := call{Method: method.Name, Object: method.This.Value, User: r.UserAgent()}
	made.Argument, made.Options = argumentOf(method.Body), optionsOf(method.Body)
	made.Version = strings.TrimPrefix(strings.Trim(r.Header.Get("SOAPAction"), `"`), "urn:")
	if !f.site.enter(r) {
		r.Header.Del("Cookie")
		if !forStrangers(method) {
			writeAnswer(w, notAuthenticated(method.This))
			made.Ended = "NotAuthenticated"
			f.site.note(made)
			return
		}
	}
	made.Ended = f.dispatch(w, r, method)
	f.site.note(made)
}

// dispatch answers a call and tells how: "" or the name of the fault.
func (f *front) dispatch(w http.ResponseWriter, r *http.Request, method *simulator.Method) string {
	met := f.site.struck(method.Name, method.This.Value)
	if met != nil {
		if done, ended := f.site.strike(met, w, method.This, method.Name); done {
			return ended
		}
	}
	own := f.site.answer(method, met)
	if met != nil && met.Action == "lose_answer" {
		if own == nil {
			f.simulator.ServeHTTP(httptest.NewRecorder(), r)
		}
		hangUp(w)
		return "answer lost"
	}
	if own != nil {
		writeAnswer(w, own)
		if own.fault != nil {
			return faultName(own.fault)
		}
		return ""
	}
	return f.pass(w, r, method)
}

// pass lets the simulator answer, and learns what it said.
func (f *front) pass(w http.ResponseWriter, r *http.Request, method *simulator.Method) string {
	recorder := httptest.NewRecorder()
	if f.breaksOff(recorder, r) {
		if method.Name != "Fetch" {
			http.Error(w, "the simulator broke off", http.StatusInternalServerError)
			return "broke off"
		}
		writeAnswer(w, fetched(method))
		return ""
	}
	response := recorder.Result()
	f.site.learnSession(r, method.Name, response)
	for name, values := range response.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(response.StatusCode)
	_, _ = w.Write(recorder.Body.Bytes())
	if response.StatusCode == http.StatusOK {
		return ""
	}
	if found := faultPattern.FindSubmatch(recorder.Body.Bytes()); found != nil {
		return string(found[1])
	}
	return response.Status
}

var faultPattern = regexp.MustCompile(`<detail><(\w+)Fault\b`)

// breaksOff runs the simulator, which gives up a connection over what it did not think of.
func (f *front) breaksOff(w http.ResponseWriter, r *http.Request) (broke bool) {
	defer func() {
		if what := recover(); what != nil {
			log.Printf("simulator: %v", what)
			broke = true
		}
	}()
	f.simulator.ServeHTTP(w, r)
	return false
}
