; A guest that writes at random for ever: bytes over physical memory, values to
; ports, fw_cfg's DMA with random descriptors.  Between two of these it raises one
; #UD, at `raise`, and no other exception.
;
; It leaves out its own first 16 MiB, and the ports by which a machine is switched
; off, reset or puts itself to sleep.  Wide accesses are aligned: QEMU 7.2 aborts at
; some of its serial port that are not.  Half of the addresses above 4 GiB are close
; behind a power of two, where a monitor may be.

%ifndef SEED
%define SEED 1
%endif

%include "inc/boot.inc"
%include "inc/console.inc"
%include "inc/long.inc"

VIEW            equ WINDOW + 0x400000   ; a page of 2 MiB, moved over physical memory
VIEW_ENTRY      equ PD_WINDOW + 16
DESCRIPTOR      equ 0x300000            ; of a DMA: control, length, address
OWN             equ 16 << 20
RAM             equ 128 << 20

        WIDTH 64
main64: call    load_idt
        mov     eax, 6
        mov     ebx, on_ud
        call    set_gate
        mov     r15, SEED * 0x9E3779B97F4A7C15 + 1
        PRINT   'START', 10
next:   call    random
        and     eax, 3
        jmp     [kinds + rax * 8]
done:
raise:  ud2
        jmp     next

        align 8
kinds:  dq      memory, output, input, transfer

; RAX = a random number (xorshift64; R15 is its state)
random: mov     rax, r15
        shl     rax, 13
        xor     r15, rax
        mov     rax, r15
        shr     rax, 7
        xor     r15, rax
        mov     rax, r15
        shl     rax, 17
        xor     r15, rax
        mov     rax, r15
        ret

; RAX = a physical address that is not the guest's own
place:  call    random
        mov     rcx, rax
        shr     rcx, 48
        test    cl, 3
        jz      .ram
        test    cl, 2
        jz      .far
        and     eax, 0xFFFFFF           ; close behind 2^32 to 2^39
        shr     ecx, 2
        and     ecx, 7
        add     ecx, 32
        mov     edx, 1
        shl     rdx, cl
        add     rax, rdx
        ret
.far:   mov     rdx, 0xFFFFFFFFFF
        and     rax, rdx
        cmp     rax, OWN
        jb      place
        ret
.ram:   and     eax, RAM - 1
        cmp     eax, OWN
        jb      place
        ret

memory: call    place
        mov     rdx, rax
        and     rdx, ~0x1FFFFF
        or      rdx, PTE_P | PTE_W | PTE_PS
        mov     [VIEW_ENTRY], rdx
        invlpg  [VIEW]
        mov     ebx, eax
        and     ebx, 0x1FFFF8
        call    random
        mov     [VIEW + rbx], rax
        jmp     done

; DX = a port; EAX = a value
port:   call    random
        movzx   edx, ax
        mov     ebx, left_out
.test:  cmp     dx, [rbx]
        jb      .next
        cmp     dx, [rbx + 2]
        jbe     port
.next:  add     ebx, 4
        cmp     ebx, left_out_end
        jb      .test
        shr     rax, 32
        ret

; ACCESS byte, word, dword: one of three widths
%macro ACCESS 3
        call    port
        bt      r15, 60
        jc      %%wide
        bt      r15, 61
        jc      %%word
        %1
        jmp     done
%%word: and     edx, ~1
        %2
        jmp     done
%%wide: and     edx, ~3
        %3
        jmp     done
%endmacro

output: ACCESS  {out dx, al}, {out dx, ax}, {out dx, eax}
input:  ACCESS  {in al, dx}, {in ax, dx}, {in eax, dx}

transfer:
        call    random                  ; control: an item, and what is done with it
        and     eax, 0x3F001E
        bswap   eax
        mov     [DESCRIPTOR], eax
        call    random
        movzx   eax, ax
        bswap   eax
        mov     [DESCRIPTOR + 4], eax
        call    place
        bswap   rax
        mov     [DESCRIPTOR + 8], rax
        mov     dx, 0x514
        xor     eax, eax
        out     dx, eax
        mov     dx, 0x518
        mov     eax, DESCRIPTOR
        bt      r15, 59
        jc      .start
        call    place                   ; a descriptor somewhere
        mov     dx, 0x514
        ror     rax, 32
        bswap   eax
        out     dx, eax
        bswap   eax
        ror     rax, 32
        mov     dx, 0x518
.start: bswap   eax
        out     dx, eax
        jmp     done

on_ud:  add     qword [rsp], 2
        iretq

        align 4
left_out:
        dw      0x00, 0x0F              ; ISA DMA: the guest's own memory
        dw      0x60, 0x64              ; the keyboard controller resets
        dw      0x80, 0x9F              ; so does port 92; page registers of the ISA DMA
        dw      0xB2, 0xB3              ; APM: SMIs
        dw      0xC0, 0xDF              ; ISA DMA
        dw      0xF4, 0xF7              ; isa-debug-exit
        dw      0x510, 0x511            ; fw_cfg's selector: DMA has its own
        dw      0x600, 0x63F            ; power management
        dw      0xCF5, 0xCFF            ; reset, and the configuration of PCI
        dw      0xC000, 0xC0FF          ; bus masters' registers
        dw      0xFFFD, 0xFFFF          ; a wide access reaches the ports behind
left_out_end:

%define CONSOLE_CODE
%include "inc/console.inc"
%include "inc/gates.inc"
