// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"net/http"
	"reflect"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

type session struct {
	calls   int
	expired bool
}

// cookieOf is the session a request claims.
func cookieOf(r *http.Request) string {
	if cookie, err := r.Cookie(soap.SessionCookieName); err == nil {
		return cookie.Value
	}
	return ""
}

// enter counts a call and says whether its session is alive.
func (s *site) enter(r *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.sessions[cookieOf(r)]
	if !ok || known.expired {
		return false
	}
	known.calls++
	if s.settings.CallsPerSession > 0 && known.calls > s.settings.CallsPerSession {
		known.expired = true
	}
	return !known.expired
}

// learnSession notes a session that the simulator just opened, and forgets one that was closed.
func (s *site) learnSession(r *http.Request, method string, response *http.Response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, cookie := range response.Cookies() {
		if cookie.Name == soap.SessionCookieName {
			s.sessions[cookie.Value] = &session{}
		}
	}
	if method == "Logout" && response.StatusCode == http.StatusOK {
		delete(s.sessions, cookieOf(r))
	}
}

// expireSessions ends all of them, as a restart of vCenter does.
func (s *site) expireSessions() {
	for _, each := range s.sessions {
		each.expired = true
	}
}

// forStrangers tells which calls need no session. The simulator lets strangers read every property; vCenter does not.
func forStrangers(method *simulator.Method) bool {
	switch method.Name {
	case "Login", "LoginByToken", "LoginExtensionByCertificate", "CloneSession", "RetrieveServiceContent":
		return true
	case "Fetch":
		return method.This == vim25.ServiceInstance || method.This.Type == "SessionManager"
	}
	var filters []types.PropertyFilterSpec
	switch request := method.Body.(type) {
	case *types.RetrieveProperties:
		filters = request.SpecSet
	case *types.RetrievePropertiesEx:
		filters = request.SpecSet
	default:
		return false
	}
	for _, filter := range filters {
		for _, object := range filter.ObjectSet {
			if object.Obj != vim25.ServiceInstance && object.Obj.Type != "SessionManager" {
				return false
			}
		}
	}
	return true
}

func notAuthenticated(this types.ManagedObjectReference) *answer {
	return refused(&types.NotAuthenticated{NoPermission: types.NoPermission{Object: this, PrivilegeId: "System.View"}})
}

// fetched is the answer to Fetch where the property is not set: nothing. The simulator breaks off there.
func fetched(method *simulator.Method) *answer {
	property := reflect.ValueOf(method.Body).Elem().FieldByName("Prop").String()
	if property == "" {
		return refused(&types.InvalidProperty{Name: property})
	}
	return &answer{name: "FetchResponse", response: &struct{}{}}
}
