# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# A boot sector that prints "BOOT-OK ", then the text of the disk's second sector, then " END" on the first serial port.
# Then a byte on that port powers the machine off, as its own system would.
# Reading the second sector through the firmware shows that the disk behind the first one is there as well.
# Assemble: as --32 -o mbr.o mbr.s && objcopy -O binary -j .text mbr.o mbr.bin
.code16
.equ ORIGIN, 0x7c00
.equ SECTOR, 0x7e00
.equ COM1_DATA, 0x3f8
.equ COM1_STATUS, 0x3fd
.equ PM1A_CONTROL, 0x604                # of ACPI, where SeaBIOS puts it

start:
    ljmp $0, $(ORIGIN + main - start)
main:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $ORIGIN, %sp
    push %dx                            # the firmware passes the boot drive in dl
    mov $(ORIGIN + hello - start), %si
    call print
    pop %dx
    mov $0x42, %ah                      # int 13h extended read, by the packet below
    mov $(ORIGIN + packet - start), %si
    int $0x13
    jc unreadable
    mov $SECTOR, %si
    call print
    mov $(ORIGIN + finish - start), %si
    jmp last
unreadable:
    mov $(ORIGIN + failure - start), %si
last:
    call print
    sti
halt:
    hlt                                 # until the firmware's timer, 18 times a second
    mov $COM1_STATUS, %dx
    in %dx, %al
    test $1, %al
    jz halt
    mov $PM1A_CONTROL, %dx
    mov $0x2000, %ax                    # SLP_EN, of S5
    out %ax, %dx
    jmp halt

print:                                  # the text at si, to its zero byte
    lodsb
    test %al, %al
    jz done
    mov %al, %bl
busy:
    mov $COM1_STATUS, %dx
    in %dx, %al
    test $0x20, %al
    jz busy
    mov $COM1_DATA, %dx
    mov %bl, %al
    out %al, %dx
    jmp print
done:
    ret

hello:   .asciz "BOOT-OK "
failure: .asciz "READ-ERROR\r\n"
finish:  .asciz " END\r\n"
packet:  .byte 16, 0
         .word 1
         .word SECTOR, 0
         .quad 1
    .org 510
    .word 0xaa55
