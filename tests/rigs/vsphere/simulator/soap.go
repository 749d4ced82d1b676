// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"reflect"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

const (
	vimNamespace      = "urn:vim25"
	envelopeNamespace = "http://schemas.xmlsoap.org/soap/envelope/"
	instanceNamespace = "http://www.w3.org/2001/XMLSchema-instance"
	schemaNamespace   = "http://www.w3.org/2001/XMLSchema"
)

// answer is what a method gives back: a response of the types package, or a fault.
type answer struct {
	name     string // of the response's element; empty: that of its type
	response interface{}
	fault    types.BaseMethodFault
}

type taskResponse struct {
	Returnval types.ManagedObjectReference `xml:"returnval"`
}

func refused(fault types.BaseMethodFault) *answer { return &answer{fault: fault} }

func answered(response interface{}) *answer { return &answer{response: response} }

// taskOf is the answer of a method that gives a task.
func taskOf(method string, task types.ManagedObjectReference) *answer {
	return &answer{name: method + "Response", response: &taskResponse{Returnval: task}}
}

// writeAnswer sends it as the simulator sends its own (SOAP 1.1, document/literal).
func writeAnswer(w http.ResponseWriter, a *answer) {
	var text bytes.Buffer
	text.WriteString(xml.Header)
	encoder := xml.NewEncoder(&text)
	envelope := xml.StartElement{Name: xml.Name{Local: "soapenv:Envelope"}, Attr: []xml.Attr{
		attribute("xmlns:soapenv", envelopeNamespace),
		attribute("xmlns:xsd", schemaNamespace),
		attribute("xmlns:xsi", instanceNamespace),
	}}
	body := xml.StartElement{Name: xml.Name{Local: "soapenv:Body"}}
	status := http.StatusOK
	if a.fault != nil {
		status = http.StatusInternalServerError
	}
	err := tokens(encoder, []xml.Token{envelope, body}, func() error {
		if a.fault != nil {
			return writeFault(encoder, a.fault)
		}
		name := a.name
		if name == "" {
			name = reflect.TypeOf(a.response).Elem().Name()
		}
		return encoder.EncodeElement(a.response, xml.StartElement{Name: xml.Name{Space: vimNamespace, Local: name}})
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes())
}

func writeFault(encoder *xml.Encoder, fault types.BaseMethodFault) error {
	kind := faultName(fault)
	outer := []xml.Token{xml.StartElement{Name: xml.Name{Local: "soapenv:Fault"}}}
	return tokens(encoder, outer, func() error {
		for name, value := range map[string]string{"faultcode": "ServerFaultCode", "faultstring": kind} {
			if err := encoder.EncodeElement(value, xml.StartElement{Name: xml.Name{Local: name}}); err != nil {
				return err
			}
		}
		detail := []xml.Token{xml.StartElement{Name: xml.Name{Local: "detail"}}}
		return tokens(encoder, detail, func() error {
			start := xml.StartElement{Name: xml.Name{Local: kind + "Fault"}, Attr: []xml.Attr{
				attribute("xmlns", vimNamespace), attribute("xsi:type", kind),
			}}
			return encoder.EncodeElement(fault, start)
		})
	})
}

// tokens opens elements, lets their content be written, and closes them.
func tokens(encoder *xml.Encoder, open []xml.Token, content func() error) error {
	for _, each := range open {
		if err := encoder.EncodeToken(each); err != nil {
			return err
		}
	}
	if err := content(); err != nil {
		return err
	}
	for i := len(open) - 1; i >= 0; i-- {
		if err := encoder.EncodeToken(open[i].(xml.StartElement).End()); err != nil {
			return err
		}
	}
	return encoder.Flush()
}

func attribute(name, value string) xml.Attr {
	return xml.Attr{Name: xml.Name{Local: name}, Value: value}
}

func faultName(fault types.BaseMethodFault) string { return reflect.TypeOf(fault).Elem().Name() }

// newFault makes the fault of this name, with nothing said in it.
func newFault(name string) (types.BaseMethodFault, error) {
	if kind, ok := types.TypeFunc()(name); ok {
		if fault, ok := reflect.New(kind).Interface().(types.BaseMethodFault); ok {
			return fault, nil
		}
	}
	return nil, fmt.Errorf("the API has no fault %q", name)
}

// faultOf is what the simulator answered to a call made within this process.
func faultOf(err error) types.BaseMethodFault {
	if soap.IsSoapFault(err) {
		if fault, ok := soap.ToSoapFault(err).VimFault().(types.BaseMethodFault); ok {
			return fault
		}
	}
	return &types.SystemError{Reason: err.Error()}
}

// finishedTask makes a task of an entity that is over already: with a result, or with a fault.
func finishedTask(entity types.ManagedObjectReference, name string, result types.AnyType, fault types.BaseMethodFault) types.ManagedObjectReference {
	task := simulator.CreateTask(entity, taskName(name), func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		return result, fault
	})
	return task.Run()
}

// taskFault is how a task ended that the simulator ran; nil is well.
func taskFault(ref types.ManagedObjectReference) types.BaseMethodFault {
	task := simulator.Map.Get(ref).(*simulator.Task)
	if task.Info.Error == nil {
		return nil
	}
	return task.Info.Error.Fault
}

// ofMachine makes a task one of the machine's, as vCenter has it; the simulator names snapshots, which no client expects.
func ofMachine(ref types.ManagedObjectReference, vm types.ManagedObjectReference) types.ManagedObjectReference {
	task := simulator.Map.Get(ref).(*simulator.Task)
	task.Info.Entity = &vm
	return ref
}
