/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vCPU block: everything translated code reaches through GS.
 *
 * Each vCPU has DBT_CONTEXTS windows, one per address space that is kept
 * warm.  Every window starts with the same shared bytes (one file mapped many
 * times) and goes on with the window's own translation caches:
 *
 *   window 0:  [ struct cpu, kernel TLB, kernel jump cache | user TLB, user jump cache ]
 *   window 1:  [        the same pages again               | its own                   ]
 *
 * Loading CR3 only moves the GS base to another window: nothing is flushed, and
 * translated code still finds everything at constant offsets from GS.
 *
 * Registers while translated code runs: guest GPRs are in the host registers of
 * the same name except R10 and R11, whose home is gpr[10] and gpr[11]; host R10
 * and R11, T0 and T1, are scratch.  A block that names R10 or R11 borrows other
 * registers instead (see scan.c).  Guest arithmetic flags are in host EFLAGS; DF and
 * the system flags are in the block, host DF is always clear.  Vector and x87
 * state is in the host registers.
 */
#ifndef ENGINE_DBT_CPU_H
#define ENGINE_DBT_CPU_H

#include "engine/dbt/page_set.h"
#include "isa/insn.h"
#include "vmm/engine.h"
#include "vmm/guest_mem.h"
#include "vmm/vcpu_state.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Host registers that are scratch between blocks and in those that do not name R10 or R11. */
enum { T0 = R10, T1 = R11 };
#define SCRATCH_REGISTERS (1u << T0 | 1u << T1)

static inline bool is_scratch(unsigned r)
{
	return SCRATCH_REGISTERS >> r & 1;
}

#define DBT_CONTEXTS 8
#define USER_IN_KERNEL_MAX 64
#define WALKED 64
#define FILLED_MAX 1024
#define TLB_BITS 12
#define TLB_ENTRIES (1u << TLB_BITS)
#define JC_ENTRIES (1u << 17)	/* a compiler jumps to some 60,000 places */
#define PAGE_SIZE 4096ull
#define GUARD_PAGES 4
#define GUARD_OPEN 2	/* the one of them that is accessible */
#define RETURN_PAGES 1	/* for the stack of returns.c */
#define PAGE_MASK (~(PAGE_SIZE - 1))

/*
 * Guest address to translated code.  An indirect jump goes to code unseen, which
 * begins with a look at whether address + ntag is 0 (emit_entry()): there the way
 * of the jump is predicted already.  Functions begin at multiples of 16, so the
 * index takes in higher bits: see jc_index().
 */
struct jc_entry {
	uint64_t code;	/* host address; of thunk_indirect where there is none */
	uint64_t ntag;
};

/*
 * A software TLB.  Negated tags: address + ntag is the offset in the page exactly
 * when the entry matches.  An entry that allows nothing has a tag whose
 * index differs from its own place, so that it never matches.  A look-up needs one
 * tag and one of the others: entries of neighbours share cache lines, and the index
 * is only scaled by 8.  Pages that are read and pages that are written do not drive
 * each other out: the two sides of a copy may share places.
 */
struct tlb {
	struct tlb_side {
		uint64_t ntag[TLB_ENTRIES];
		uint64_t addend[TLB_ENTRIES];	/* host address - guest address */
		uint64_t host[TLB_ENTRIES];	/* host address of the page */
	} read, write;
};

enum jc_of { JC_KERNEL, JC_USER };

#define JC_FOLD 5
#define JC_ENTRIES_KERNEL 32768u	/* of the kernel's, at most */
#define JC_ENTRIES_KEPT 8192u	/* of the kernel's, by a guest that rests: to fill them again takes a millisecond of its next command */
#define JC_ENTRIES_FIRST 1024u	/* a machine that does little touches little memory: see make_room() in jump_cache.c */

struct jump_cache {
	struct jc_entry entry[JC_ENTRIES];
	uint64_t polled;	/* where entry 0 leads, behind the thunk that its code is (see ask_to_exit()) */
	uint64_t mask;	/* for PDEP: twice the index, which is then scaled by 8 */
	_Atomic uint32_t entries;	/* in use of JC_ENTRIES, a power of two; 0: it has not begun */
	uint32_t crowded;	/* entries that had to go for others since it is so */
	uint32_t filled;	/* entries filled since the last flush */
};

/* Where code of a window was found: a hash table by address.  See user_code.c. */
#define USER_SLOTS 65536u	/* a compiler runs from 6,000 pages */
#define CODE_NUMBERS 32768u	/* pages of relocatable code that direct jumps from others are linked to */

struct user_code {
	uint32_t slots;	/* in use of USER_SLOTS, a power of two */
	uint32_t used;	/* of those, at most half */
	bool too_many;	/* there are more pages, which are not noted */
	struct large_pages large;	/* that they are parts of */
	struct user_page {
		uint64_t va;	/* and flags; 0: none */
		gpa_t pa;
		uint32_t number;	/* struct code_page.number of it, or CODE_NUMBERS */
	} page[USER_SLOTS];
};

/* A pending or faulting event to deliver. */
struct event {
	uint8_t vector;
	uint8_t kind;	/* enum event_kind */
	bool has_error;
	uint32_t error;
	uint64_t next_rip;	/* for software interrupts: where to return */
};

enum event_kind { EVENT_FAULT, EVENT_TRAP, EVENT_SOFT, EVENT_EXTERNAL, EVENT_NMI };

/* A break- or watchpoint in force: one of the guest's four, or of the debugger's outside. */
struct debug_point {
	uint64_t addr;
	uint8_t len;	/* bytes, a power of two that @addr is a multiple of */
	uint8_t type;	/* enum debug_type */
	uint8_t index;	/* of its address register; + DEBUG_OUTSIDE */
};

enum debug_type { DEBUG_EXEC, DEBUG_WRITE, DEBUG_PORT, DEBUG_ACCESS };	/* R/W fields of DR7 */

#define DEBUG_OUTSIDE 4
#define DEBUG_POINTS_MAX 8

/* What ends the present instruction with a trap: struct cpu.stepping. */
enum { STEP_TF = 1, STEP_OUTSIDE = 2, STEP_HIT = 4 };

struct dbt_vm;
struct block;
struct vcpu;

struct cpu {
	/* --- addressed by translated code and thunk.S; offsets checked there --- */
	uint64_t gpr[GPR_COUNT];
	uint64_t rip;
	uint64_t flags;	/* arithmetic flags while outside translated code */
	uint64_t scratch[2];	/* host T0 and T1 at a thunk */
	uint64_t vbase;	/* guest address that relocatable code is relative to: VBASE_LOW in its page */
	uint64_t spill[GPR_COUNT];	/* guest values of registers that the present block borrows */
	uint64_t tmp[4];	/* temporaries within one translated instruction */
	uint64_t miss_data;	/* struct miss_site of the TLB miss in progress */
	uint64_t miss_address;	/* what it did not find */
	uint64_t miss_flags;	/* flags at that miss: AH from LAHF, AL from SETO */
	uint64_t host_rsp;
	uint64_t tlb_mask;	/* PEXT mask: the TLB index of an address */
	uint64_t page_mask;	/* ~0xfff */
	uint64_t bit_mask[3];	/* 15, 31, 63 */
	_Atomic uint64_t jc_mask[2];	/* jump_cache.mask of the kernel's and of the user's in use, or 0, which polls: see ask_to_exit() */
	uint64_t thunk_exit, thunk_stray, thunk_miss, thunk_indirect, thunk_return, thunk_polled[2];	/* the last: kernel, user */
	uint64_t returns, returns_empty;	/* the stack of returns.c: where it ends now, and when nothing is on it */
	uint64_t resume_pc;	/* where the thunks go on */
	uint64_t fs_base, gs_base, kernel_gs_base;
	uint64_t slow_host;	/* host address for a slow-path access */
	uint64_t tsc_offset;
	uint32_t tsc_aux;
	uint32_t deferred;	/* an interrupt waits for RFLAGS.IF */
	/*
	 * Polled as one quadword: leave translated code at the next poll.  The low
	 * half is set by any thread, the high half by translated code itself (STI).
	 */
	_Alignas(8) _Atomic uint32_t exit_request;
	uint32_t exit_self;
	_Alignas(4) uint8_t intr_enabled;	/* RFLAGS.IF; these four are stored as one in entry.c */
	uint8_t direction;	/* RFLAGS.DF */
	uint8_t cpl;
	uint8_t in_code;	/* inside translated code, for signal handlers */
	_Atomic uint32_t strips;	/* odd: look-ups for writing are held, across rounds of a loop or by C code */
	uint64_t gs_window;	/* GS base now in force */
	uint64_t self;	/* host address of this struct in window 0 */
	uint64_t xsave_area;	/* guest vector state while C code may use it */
	uint64_t xcr0_host;	/* components saved and restored: all that guests may use */
	uint32_t default_mxcsr;	/* for C code */
	uint32_t xsave_size;	/* bytes of a standard XSAVE area for the guest's XCR0 */

	/* --- C side only --- */
	uint32_t sysflags;	/* IOPL, NT, RF, AC, ID, TF bits of RFLAGS */
	uint32_t mode;	/* BLOCK_* bits of code run now */
	struct seg_reg seg[SEG_COUNT];
	struct seg_reg ldtr, tr;
	struct desc_table gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, xcr0, efer, apic_base;
	uint64_t dr[8];
	uint64_t star, lstar, cstar, sfmask, pat;
	struct seg_reg syscall_seg[4];	/* CS and SS after SYSCALL and after SYSRET to 64 bits; see entry.c */
	uint8_t syscall_ready;	/* those are good, and the rest is as entry.c expects */
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t misc_enable, mtrr_def_type, kvm_system_time, kvm_wall_clock;
	int timer_id;	/* of the kernel, for raw timer_settime() */
	bool timer_ready;	/* timer_id is valid */
	uint32_t mxcsr_mask;	/* bits of MXCSR that the host has: others make its instructions fault */
	uint64_t timer_tsc;	/* when the APIC timer wants to fire, 0 never */
	_Atomic uint32_t looks;	/* how often exit_request was looked at */
	_Atomic uint32_t inside;	/* may be in translated code, or hold pointers to it */

	struct dbt_vm *vm;
	struct vcpu *vcpu;
	unsigned index;
	unsigned context;	/* window in use */
	uint8_t *windows;	/* host address of window 0 */
	struct {
		uint64_t cr3;	/* with PCID; ~0 when empty */
		uint64_t used;	/* age, for replacement */
	} ctx[DBT_CONTEXTS];
	uint64_t ctx_age;
	struct {	/* see rest() */
		uint64_t age;	/* ctx_age when the guest last went to sleep */
		uint64_t since;	/* TSC of the host when it was that first */
		bool done;
	} rest;
	/* Addresses in the kernel TLB that CR3 may change; more than the maximum: unknown. */
	uint64_t user_in_kernel[USER_IN_KERNEL_MAX];
	unsigned nuser_in_kernel;
	struct large_pages klarge;	/* of ktlb */
	_Atomic uint8_t windows_begun;	/* bit per window: its memory is no longer all zero */
	bool ktlb_filled;	/* since it was emptied */
	bool kernel_code_moves;	/* kernel jump cache has code that CR3 may change */
	uint32_t kernel_epoch;	/* code_cache.kernel_epoch when that jump cache was made sure of last */
	struct page_filter kernel_code_seen;	/* pages of the upper half that it ran from */
	struct large_pages kernel_code_large;	/* that those are parts of */
	/*
	 * Page tables found by recent walks (a paging-structure cache: SDM vol. 3, 4.10.3),
	 * and large pages, by bits of the address; aged by whatever may flush TLB entries.
	 */
	struct walked {
		uint64_t key;	/* address >> 21 and the age at that time */
		uint64_t *table;	/* host address, or NULL */
		uint64_t large;	/* without table: what the entry of the first 4 KiB would be in one */
		uint64_t allowed;	/* PTE bits that all levels above have set */
		bool nx;
		uint8_t shift;	/* of the size of the page that @large is part of */
	} walked[WALKED];
	/* Bank 0 of guest RAM, at address 0, for dbt_miss_quick(): */
	uint8_t *ram;
	uint64_t ram_size;
	_Atomic uint8_t *ram_flags;	/* code_cache.page_flags of it */
	uint32_t walked_age;	/* 21 bits */
	uint64_t fault_va;	/* where the last failed mem_*() failed */

	bool halted;
	uint32_t halt_poll_ns;	/* how long HLT looks before it sleeps */
	bool intr_shadow;	/* interrupts wait one instruction: a level that stays up cannot stop the guest */
	bool nmi_pending, nmi_masked;
	bool wait_for_sipi;
	bool delivering;	/* an event is being delivered: a second one may be a double fault */
	uint8_t delivering_vector;
	struct {	/* the exceptions that led to a shutdown, oldest first */
		uint64_t rip, rsp, cr2;
		uint32_t error;
		uint8_t vector, cpl;
	} chain[3];
	unsigned nchain;
	struct event pending;	/* valid when has_pending */
	bool has_pending;
	_Atomic bool kicked;
	_Atomic bool timer_fired;
	_Atomic uint32_t wake;	/* futex word: bumped when a halted vCPU should look */
	int leave;	/* enum leave: why translated code was left for good */

	/* the slow access in progress: up to two pieces, in two pages */
	struct {
		uint32_t size, split;	/* bytes in all, and in the first piece */
		uint8_t rw;
		bool direct;	/* works on RAM itself, not on bounce */
		gpa_t gpa[2];
		uint8_t *host[2];	/* NULL: a device */
		uint64_t active;	/* bit per byte: those an element mask selects */
		uint64_t ea;
		bool through_rdi;	/* the guest's RDI is in tmp[1] while the instruction runs */
		/* Pieces that the guest may not access: vector 0, or what to raise when it does. */
		uint8_t vector[2];
		uint32_t error[2];
	} slow;
	uint64_t guard;	/* GUARD_PAGES host pages, see slow.c */
	/* filled by the signal handler for dbt_fault() */
	struct {
		uint64_t pc, address;	/* @address: of a page fault in the guard pages */
		uint8_t vector;
	} fault;
	uint64_t exit_vbase;	/* vbase when the exit being handled was taken */
	uint32_t kjc_mode;	/* BLOCK_* bits of the code in kjc */
	bool takes_jumps;	/* kjc is to be filled from struct dbt_vm.jumps */
	bool vectors_live;	/* guest vector state is in the registers, not in xsave[] */
	uint8_t stepping;	/* STEP_*: what happens after the present instruction */
	struct {	/* see debug.c */
		struct debug_point point[DEBUG_POINTS_MAX];
		unsigned npoints;
		bool exec, data, port;	/* kinds among them */
		uint8_t hits;	/* bit per debug_point.index: watchpoints that the present instruction met */
		struct vcpu_debug outside;
		struct vcpu_stop stop;	/* for LEAVE_DEBUG */
	} debug;
	_Alignas(64) uint8_t bounce[64 + INSN_MEM_MAX];

	struct dbt_stats {
		uint64_t tlb_miss, tlb_flush, jc_miss, links, blocks, woken, invalidations, exits, strays, slow,
			exceptions, interrupts, helpers, heavy;
	} stats;
	const char *fatal;	/* why the engine cannot go on, or NULL */
	_Alignas(64) uint8_t xsave[VCPU_XSAVE_MAX];
	_Alignas(64) uint8_t xsave_copy[VCPU_XSAVE_MAX];	/* of a guest's XSAVE area */

	_Alignas(4096) struct tlb ktlb;
	struct jump_cache kjc;
};

/* Behind the shared bytes, private to a window. */
struct window_private {
	struct tlb utlb;
	struct jump_cache ujc;
	/* Negated: the vbase at which a page's code is for the kernel, and for programs, by its number; 0: unknown.  See user_code.c. */
	uint64_t nbase[2][CODE_NUMBERS];
	uint32_t jc_mode;	/* BLOCK_* bits of the code in ujc */
	struct large_pages ularge;	/* of utlb */
	/* Entries filled since the last flush; counts (jump_cache.filled) above FILLED_MAX: too many to list. */
	uint16_t ntlb;
	uint16_t tlb_filled[FILLED_MAX];
	uint32_t jc_filled[FILLED_MAX];
	struct user_code code;
};

#define WINDOW_SHARED ((sizeof(struct cpu) + PAGE_SIZE - 1) & PAGE_MASK)
#define WINDOW_SIZE (WINDOW_SHARED + ((sizeof(struct window_private) + PAGE_SIZE - 1) & PAGE_MASK))

/* Offsets from GS. */
#define GS_UTLB WINDOW_SHARED
#define GS_UJC (WINDOW_SHARED + offsetof(struct window_private, ujc))
#define GS_JC_MODE (WINDOW_SHARED + offsetof(struct window_private, jc_mode))
#define GS_KTLB offsetof(struct cpu, ktlb)
#define GS_KJC offsetof(struct cpu, kjc)
#define GS(field) ((uint32_t)offsetof(struct cpu, field))
#define GS_NBASE(user, number) \
	((uint32_t)(WINDOW_SHARED + offsetof(struct window_private, nbase) + ((user) ? CODE_NUMBERS : 0) * 8ull + (number) * 8ull))
#define GS_JC_CODE(user) ((uint32_t)((user) ? GS_UJC : GS_KJC) + (uint32_t)offsetof(struct jc_entry, code))

static inline struct window_private *cpu_window(struct cpu *cpu, unsigned context)
{
	return (struct window_private *)(cpu->windows + context * WINDOW_SIZE + WINDOW_SHARED);
}

enum leave { LEAVE_NONE, LEAVE_KICKED, LEAVE_HALT, LEAVE_SHUTDOWN, LEAVE_REQUEST, LEAVE_STOP, LEAVE_FLUSH,
	     LEAVE_DEBUG, LEAVE_ERROR };

#endif /* ENGINE_DBT_CPU_H */
