# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# A boot sector that leaves the firmware's screen as it is for a second or two, then clears it and writes a line.
# Assemble: as --32 -o screen.o screen.s && objcopy -O binary -j .text screen.o screen.bin
.code16
.equ ORIGIN, 0x7c00

start:
    ljmp $0, $(ORIGIN + main - start)
main:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $ORIGIN, %sp
    sti
    mov $27, %cx                        # of the firmware's timer, 18 times a second
wait:
    hlt
    loop wait
    mov $3, %ax                         # int 10h: text, 80 columns, which clears the screen
    int $0x10
    mov $(ORIGIN + hello - start), %si
next:
    lodsb
    test %al, %al
    jz halt
    mov $0x0e, %ah                      # int 10h: write as a teletype would
    mov $7, %bx
    int $0x10
    jmp next
halt:
    hlt
    jmp halt

hello:   .asciz "\r\n\r\n\r\n\r\n\r\n\r\nlogin: "
    .org 510
    .word 0xaa55
