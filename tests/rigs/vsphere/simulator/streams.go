// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// Sizes of a streamOptimized VMDK ("Virtual Disk Format 5.0", VMware, chapters "Hosted Sparse Extents" and "Stream-
// Optimized Compressed Sparse Extents").
const (
	sector        = 512
	grainSectors  = 128
	grain         = grainSectors * sector
	tableEntries  = 512
	descriptorAt  = 1
	descriptorLen = 20
	overhead      = 128 // sectors before the first grain
	atTheEnd      = 0xFFFFFFFFFFFFFFFF
	hasMarkers    = 1<<0 | 1<<16 | 1<<17 // line ends can be tested, grains are compressed, markers stand before all

	endOfStream, tableMarker, directoryMarker, footerMarker = 0, 1, 2, 3
)

type sparseHeader struct {
	Magic              [4]byte
	Version            uint32
	Flags              uint32
	Capacity           uint64
	GrainSize          uint64
	DescriptorOffset   uint64
	DescriptorSize     uint64
	EntriesPerTable    uint32
	RedundantDirectory uint64
	Directory          uint64
	Overhead           uint64
	Unclean            byte
	LineEnds           [4]byte
	Compression        uint16
}

// streamWriter writes a disk as ESXi does: head first, tables as their grains are done, and the footer last, so that
// who reads it knows only at the end that it was whole.
type streamWriter struct {
	out       io.Writer
	at        uint64 // sectors written
	head      sparseHeader
	directory []uint32
	table     []uint32
	filled    bool
	packed    bytes.Buffer
	packer    *zlib.Writer
}

// writeStream writes the raw disk of `size` bytes.
func writeStream(out io.Writer, path string, size int64) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	w := &streamWriter{out: out, table: make([]uint32, tableEntries), head: sparseHeader{
		Magic: [4]byte{'K', 'D', 'M', 'V'}, Version: 3, Flags: hasMarkers,
		Capacity: uint64(size) / sector, GrainSize: grainSectors,
		DescriptorOffset: descriptorAt, DescriptorSize: descriptorLen, EntriesPerTable: tableEntries,
		Directory: atTheEnd, Overhead: overhead, LineEnds: [4]byte{'\n', ' ', '\r', '\n'}, Compression: 1,
	}}
	if w.packer, err = zlib.NewWriterLevel(&w.packed, zlib.BestSpeed); err != nil {
		return err
	}
	if err := w.begin(size); err != nil {
		return err
	}
	data, zeros := make([]byte, grain), make([]byte, grain)
	for at := int64(0); at < size; at += grain {
		n, err := io.ReadFull(file, data[:min(grain, size-at)])
		if err != nil {
			return err
		}
		copy(data[n:], zeros) // the last grain is whole, whatever the disk is
		if !bytes.Equal(data, zeros) {
			if err := w.grain(uint64(at)/sector, data); err != nil {
				return err
			}
		}
		if last := at/grain%tableEntries == tableEntries-1; last || at+grain >= size {
			if err := w.endTable(); err != nil {
				return err
			}
		}
	}
	return w.end()
}

func min(a, b int64) int64 {
	if a < b {
		return a
	}
	return b
}

// put writes data and fills its last sector.
func (w *streamWriter) put(data []byte) error {
	if rest := len(data) % sector; rest != 0 {
		data = append(data, make([]byte, sector-rest)...)
	}
	_, err := w.out.Write(data)
	w.at += uint64(len(data)) / sector
	return err
}

func (w *streamWriter) putHeader(head sparseHeader) error {
	var packed bytes.Buffer
	if err := binary.Write(&packed, binary.LittleEndian, head); err != nil {
		return err
	}
	return w.put(packed.Bytes())
}

func (w *streamWriter) begin(size int64) error {
	if err := w.putHeader(w.head); err != nil {
		return err
	}
	text := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=7e5a0c3d\nparentCID=ffffffff\n"+
		"createType=\"streamOptimized\"\n\n# Extent description\nRDONLY %d SPARSE \"generated-stream.vmdk\"\n\n"+
		"# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"%d\"\n"+
		"ddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\nddb.virtualHWVersion = \"19\"\n",
		size/sector, size/sector/255/63)
	place := make([]byte, (overhead-descriptorAt)*sector)
	copy(place, text)
	return w.put(place)
}

func (w *streamWriter) grain(lba uint64, data []byte) error {
	w.packed.Reset()
	w.packer.Reset(&w.packed)
	if _, err := w.packer.Write(data); err != nil {
		return err
	}
	if err := w.packer.Close(); err != nil {
		return err
	}
	marker := make([]byte, 12, 12+w.packed.Len()+sector)
	binary.LittleEndian.PutUint64(marker, lba)
	binary.LittleEndian.PutUint32(marker[8:], uint32(w.packed.Len()))
	w.table[lba/grainSectors%tableEntries] = uint32(w.at)
	w.filled = true
	return w.put(append(marker, w.packed.Bytes()...))
}

// marker announces metadata of so many sectors.
func (w *streamWriter) marker(sectors uint64, kind uint32) error {
	data := make([]byte, sector)
	binary.LittleEndian.PutUint64(data, sectors)
	binary.LittleEndian.PutUint32(data[12:], kind)
	return w.put(data)
}

func (w *streamWriter) numbers(values []uint32) error {
	var packed bytes.Buffer
	if err := binary.Write(&packed, binary.LittleEndian, values); err != nil {
		return err
	}
	return w.put(packed.Bytes())
}

// endTable writes the table of the last grains; a table of none is left out.
func (w *streamWriter) endTable() error {
	if !w.filled {
		w.directory = append(w.directory, 0)
		return nil
	}
	if err := w.marker(tableEntries*4/sector, tableMarker); err != nil {
		return err
	}
	w.directory = append(w.directory, uint32(w.at))
	if err := w.numbers(w.table); err != nil {
		return err
	}
	w.table, w.filled = make([]uint32, tableEntries), false
	return nil
}

func (w *streamWriter) end() error {
	if err := w.marker(uint64(len(w.directory)*4+sector-1)/sector, directoryMarker); err != nil {
		return err
	}
	footer := w.head
	footer.Directory = w.at
	if err := w.numbers(w.directory); err != nil {
		return err
	}
	if err := w.marker(1, footerMarker); err != nil {
		return err
	}
	if err := w.putHeader(footer); err != nil {
		return err
	}
	return w.marker(0, endOfStream)
}
