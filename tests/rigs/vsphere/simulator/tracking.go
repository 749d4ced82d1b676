// Copyright (c) 2026 the vmferry.migrate authors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/vim25/types"
)

// chunk is what change tracking tells apart; ESXi takes 64 KiB and more, by the disk's size.
const chunk = 64 << 10

// tracking is what a disk remembers of writes: for each chunk the period of the last one. A new period begins with
// each snapshot. Rewriting what was there counts as a change, as it does on ESXi.
type tracking struct {
	id      string // a reset gives another; what was told before is worthless then
	period  int64
	written []int64
	starred bool // whether `*` can be asked: not if there were snapshots when it began (VMware KB 1020128)
}

func newTracking(size int64) *tracking {
	return &tracking{id: uuid.New().String(), period: 1, written: make([]int64, (size+chunk-1)/chunk), starred: true}
}

func (t *tracking) note(offset, length int64) {
	for i := offset / chunk; i*chunk < offset+length; i++ {
		t.written[i] = t.period
	}
}

// changeID names the present: what a client must keep to ask later what changed since.
func (t *tracking) changeID() string { return fmt.Sprintf("%s/%d", t.id, t.period) }

// freeze copies what is known now, and begins the next period.
func (t *tracking) freeze() *tracking {
	kept := &tracking{id: t.id, period: t.period, starred: t.starred, written: append([]int64(nil), t.written...)}
	t.period++
	return kept
}

// changed tells which chunks of a frozen disk differ from what a changeId names.
func (t *tracking) changed(since string, file string, whole bool) (func(i int64) (bool, error), types.BaseMethodFault) {
	if since == "*" {
		if !t.starred {
			return nil, &types.FileFault{File: file}
		}
		if whole {
			return func(int64) (bool, error) { return true, nil }, nil
		}
		return func(i int64) (bool, error) {
			if t.written[i] > 0 {
				return true, nil
			}
			return hasData(file, i*chunk)
		}, nil
	}
	prefix := t.id + "/"
	period, err := strconv.ParseInt(strings.TrimPrefix(since, prefix), 10, 64)
	if err != nil || !strings.HasPrefix(since, prefix) || period > t.period {
		return nil, &types.FileFault{File: since}
	}
	return func(i int64) (bool, error) { return t.written[i] > period, nil }, nil
}

// hasData tells whether a chunk is allocated: here, whether it holds anything but zeros.
func hasData(path string, offset int64) (bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	data := make([]byte, chunk)
	n, err := file.ReadAt(data, offset)
	if err != nil && err != io.EOF {
		return false, err
	}
	return !bytes.Equal(data[:n], make([]byte, n)), nil
}

// changedAreas answers QueryChangedDiskAreas. Areas come in pages: who asks once has lost the rest.
func (s *site) changedAreas(request *types.QueryChangedDiskAreas) *answer {
	m, fault := s.machine(request.This)
	if fault != nil {
		return refused(fault)
	}
	var kept *tracking
	var size int64
	var file string
	if request.Snapshot == nil {
		if d := m.disks[request.DeviceKey]; d != nil {
			kept, size, file = d.tracking, d.size, d.current
		}
	} else if p := m.points[*request.Snapshot]; p != nil {
		if f := p.disks[request.DeviceKey]; f != nil {
			kept, size, file = f.tracking, f.size, f.file
		}
	}
	if file == "" {
		return refused(&types.InvalidArgument{InvalidProperty: "deviceKey"})
	}
	if kept == nil {
		return refused(&types.FileFault{File: file})
	}
	if request.StartOffset < 0 || request.StartOffset >= size {
		return refused(&types.InvalidArgument{InvalidProperty: "startOffset"})
	}
	changed, fault := kept.changed(request.ChangeId, file, s.settings.StarIsWhole)
	if fault != nil {
		return refused(fault)
	}
	info, err := page(request.StartOffset, size, s.settings.Page, changed)
	if err != nil {
		return refused(&types.SystemError{Reason: err.Error()})
	}
	return answered(&types.QueryChangedDiskAreasResponse{Returnval: *info})
}

// page collects areas from an offset on, up to so many.
func page(start, size int64, limit int, changed func(int64) (bool, error)) (*types.DiskChangeInfo, error) {
	info := &types.DiskChangeInfo{StartOffset: start, Length: size - start}
	for at := start; at < size; {
		end := (at/chunk + 1) * chunk
		if end > size {
			end = size
		}
		yes, err := changed(at / chunk)
		if err != nil {
			return nil, err
		}
		last := len(info.ChangedArea) - 1
		switch {
		case !yes:
		case last >= 0 && info.ChangedArea[last].Start+info.ChangedArea[last].Length == at:
			info.ChangedArea[last].Length += end - at
		case len(info.ChangedArea) == limit:
			info.Length = at - start
			return info, nil
		default:
			info.ChangedArea = append(info.ChangedArea, types.DiskChangeExtent{Start: at, Length: end - at})
		}
		at = end
	}
	return info, nil
}
