// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// A vCenter or an ESXi host for tests: the simulator of govmomi, plus what it lacks to move disks.
//
// Disks have real bytes. What comes in is judged by qemu-img, a reader of VMDK that is none of ours; what goes out is
// laid out as by ESXi, or written by qemu-img. A second HTTP server on loopback is the test's: it seeds machines, writes as their guests do, breaks
// things and tells what was left behind.
package main

import (
	"crypto/sha1"
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

type options struct {
	esxi     bool
	listen   string // host:port of the API
	nfc      string // host:port of a second server, as of an ESXi host that serves disks; empty: the API's
	control  string // host:port of the test's own door
	cert     string
	key      string
	nfcCert  string
	nfcKey   string
	user     string
	password string
}

func main() {
	var o options
	flag.BoolVar(&o.esxi, "esxi", false, "a single host, without a vCenter")
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "address of the API")
	flag.StringVar(&o.nfc, "nfc", "", "address of another server for disks")
	flag.StringVar(&o.control, "control", "127.0.0.1:0", "address of the door for tests")
	flag.StringVar(&o.cert, "cert", "", "PEM of the API's certificate")
	flag.StringVar(&o.key, "key", "", "PEM of its key")
	flag.StringVar(&o.nfcCert, "nfc-cert", "", "PEM of the certificate of the other server")
	flag.StringVar(&o.nfcKey, "nfc-key", "", "PEM of its key")
	flag.StringVar(&o.user, "user", "", "who may log in")
	flag.Parse()
	// A command line is everybody's to read.
	o.password = os.Getenv("VMFERRY_RIG_PASSWORD")
	if err := run(o); err != nil {
		log.Fatal(err)
	}
}

func run(o options) error {
	model := inventory(o.esxi)
	defer model.Remove()
	if err := model.Create(); err != nil {
		return err
	}
	certificate, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return err
	}
	service := model.Service
	service.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	service.Listen = &url.URL{Host: o.listen, User: url.UserPassword(o.user, o.password)}
	for _, entity := range simulator.Map.All("Datastore") {
		entity.(*simulator.Datastore).Summary.Type = "VMFS"
	}
	s, err := newSite(service, o)
	if err != nil {
		return err
	}
	defer os.RemoveAll(s.private)
	s.serving = door{name: o.listen, thumbprint: thumbprint(certificate)}
	server := service.NewServer()
	server.Config.Handler = &front{site: s, simulator: server.Config.Handler}
	if o.nfc != "" {
		if err := s.serveDisksElsewhere(o, server.Config.Handler); err != nil {
			return err
		}
	}
	control, err := net.Listen("tcp", o.control)
	if err != nil {
		return err
	}
	go func() { log.Fatal(http.Serve(control, newControl(s))) }()
	go s.expireLeases()

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
	return nil
}

// version is what the API calls itself; clients leave out what came after. The simulator's own is 6.5.
const version = "8.0.2"

// inventory is a datacenter with a cluster of two hosts, a host of its own, two datastores and a distributed port
// group; without a vCenter, one host. Neither has machines.
func inventory(esxi bool) *simulator.Model {
	var model *simulator.Model
	if esxi {
		model = simulator.ESX()
	} else {
		model = simulator.VPX()
		model.ClusterHost = 2
		model.Pool = 1
		model.Pod = 1
	}
	model.ServiceContent.About.Version = version
	model.ServiceContent.About.ApiVersion = version + ".0"
	model.Datastore = 2
	model.Machine = 0
	model.Autostart = false
	return model
}

// serveDisksElsewhere starts the server that leases name from now on, with a certificate of its own.
func (s *site) serveDisksElsewhere(o options, handler http.Handler) error {
	certificate, err := tls.LoadX509KeyPair(o.nfcCert, o.nfcKey)
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", o.nfc, &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		return err
	}
	s.serving = door{name: o.nfc, thumbprint: thumbprint(certificate)}
	go func() { log.Fatal(http.Serve(listener, handler)) }()
	return nil
}

// thumbprint is what a lease tells of the host that serves a disk: SHA-1 of the certificate, in hexadecimal with
// colons (HttpNfcLeaseDeviceUrl.sslThumbprint in the vSphere Web Services API).
func thumbprint(certificate tls.Certificate) string {
	var words []string
	for _, b := range sha1.Sum(certificate.Certificate[0]) {
		words = append(words, fmt.Sprintf("%02X", b))
	}
	return strings.Join(words, ":")
}

func machineOf(ref types.ManagedObjectReference) *simulator.VirtualMachine {
	vm, _ := simulator.Map.Get(ref).(*simulator.VirtualMachine)
	return vm
}
