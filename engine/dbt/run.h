/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C side of the translator, file by file:
 *
 *   thunk.c    host code between C and translated code
 *   kernel_code.c  links and jump caches when the kernel's mappings are flushed
 *   jump_cache.c   where indirect jumps find the code for an address
 *   mmu.c      page walks, software TLB, address-space windows
 *   dispatch.c what translated code calls: misses, exits, the next block
 *   find.c     the block for an address, which may have to be translated first
 *   dormant.c  blocks that other VMs translated
 *   event.c    exceptions, interrupts, IRET, SYSCALL: changes of privilege
 *   interpret.c  the interpreter; its files are listed in interpret.h
 *   string.c   repeated string instructions
 *   user_code.c  links and jump caches when mappings of programs are flushed
 *   vector.c   gathers, scatters and masked operands
 *   debug.c    break- and watchpoints, single steps
 *   slow.c     accesses that are not plain RAM: MMIO, page-crossing, code pages
 *   engine.c   engine_ops, making VMs and vCPUs; with the files of vcpu.h: the run loop, signals, state
 *
 * "Light" code (all but that of vcpu.h and the translator proper) runs on the vCPU
 * thread while guest vector registers are live in the host's: it is compiled
 * with -mgeneral-regs-only and calls no libc.  cpu_heavy() saves them around
 * anything else.
 */
#ifndef ENGINE_DBT_RUN_H
#define ENGINE_DBT_RUN_H

#include "engine/dbt/block.h"
#include "engine/dbt/cpu.h"
#include "vmm/cpuid.h"
#include "vmm/kvmclock.h"

struct err;
struct irqchip;
struct translation;
struct vm;

/* By which a program is the same in another process; all 0 when that cannot be found out. */
struct program {
	uint64_t device, inode, size, changed_s, changed_ns;
};

/* From a kernel's jump cache: code for what is at a guest's virtual address, when that is at @pa. */
struct kept_jump {
	uint64_t va, pa, code;
};

struct dbt_vm {
	struct vm *vm;
	struct code_cache *cc;
	struct irqchip *irqchip;
	struct kvmclock clock;
	const struct cpuid_table *cpuid;	/* of the struct vm */
	uint64_t xcr0_mask;	/* what guests may set */
	uint32_t tsc_khz;
	struct cpu *cpu[8];
	unsigned ncpus;
	uint8_t *thunks;	/* executable */
	int (*enter)(struct cpu *cpu, uint64_t code);
	_Atomic uint64_t *dirty;	/* dirty log, or NULL */
	struct program program;	/* that this is */
	/* What came from a file: the blocks in front, in the code cache's generation, and jumps (a mapping of ours; NULL: none). */
	uint32_t taken_blocks;
	uint64_t taken_generation;
	struct kept_jump *jumps;
	uint64_t njumps;
	bool aside;	/* all code is dormant, and may be kept for other boots */
	struct lock stop_lock;
	_Atomic uint32_t stop_wanted;	/* vCPUs stay out of translated code while set */
};

/* Indirect jumps find entry 0 of the jump caches, or as they should. */
static inline void jc_close(struct cpu *cpu)
{
	atomic_store(&cpu->jc_mask[JC_KERNEL], 0);
	atomic_store(&cpu->jc_mask[JC_USER], 0);
}

static inline void jc_open(struct cpu *cpu)
{
	atomic_store(&cpu->jc_mask[JC_KERNEL], cpu->kjc.mask);
	atomic_store(&cpu->jc_mask[JC_USER], cpu_window(cpu, cpu->context)->ujc.mask);
}

/*
 * Has the vCPU leave translated code soon: at a backward jump, which looks at
 * exit_request, or at an indirect one, which then finds entry 0 of the jump cache
 * and no match.  What belongs in entry 0 goes through a thunk that polls.
 * Any thread, signal handlers too.
 */
static inline void ask_to_exit(struct cpu *cpu)
{
	atomic_store(&cpu->exit_request, 1);
	jc_close(cpu);
}

static inline unsigned jc_index(const struct jump_cache *jc, uint64_t va)
{
	return (unsigned)(va + (va >> JC_FOLD)) & (jc->entries - 1);
}

/* Whether a window's memory is more than zeros. */
static inline bool window_has_begun(const struct cpu *cpu, unsigned context)
{
	return cpu->windows_begun >> context & 1;
}

/* --- store.c; the first seven as in struct engine_ops --- */
void dbt_record(struct vm *vm);
void dbt_set_aside(struct vm *vm, bool done);
void dbt_forget(struct vm *vm);
unsigned dbt_learned(struct vm *vm, const uint8_t *memory);
uint64_t dbt_kept_bytes(struct vm *vm);
void dbt_keep(struct vm *vm, uint8_t *to);
int dbt_take_kept(struct vm *vm, int fd, uint64_t offset, uint64_t bytes, struct err *err);
/* Fills the kernel's jump cache of @cpu, which has its state and has not run, with what was kept. */
void dbt_take_jumps(struct dbt_vm *dv, struct cpu *cpu);
/* Ends what dbt_take_kept() began. */
void dbt_drop_kept(struct dbt_vm *dv);
/* Before the jail, which has no /proc. */
void dbt_note_program(struct dbt_vm *dv);

/* --- engine.c --- */
/* Has @vm and its vCPUs use @cc, which passes to it and may hold code already. */
void dbt_use_code_cache(struct vm *vm, struct code_cache *cc);
/* The same with an empty one, at an address that nobody knows before. */
int dbt_new_code_cache(struct vm *vm, struct err *err);

/* --- thunk.c --- */
#define THUNK_BYTES 4096
/* Writes the thunks; fills vm->enter.  @rw, @rx: two mappings of THUNK_BYTES. */
void thunks_emit(struct dbt_vm *dv, uint8_t *rw, uint8_t *rx);
/* Where a signal handler sends a thread that faulted in translated code. */
uint64_t thunk_fault_entry(const struct dbt_vm *dv);
void thunks_bind(const struct dbt_vm *dv, struct cpu *cpu);

/* Calls @fn(cpu, arg) with guest vector state in cpu->xsave, which it may change. */
void cpu_heavy(struct cpu *cpu, void (*fn)(struct cpu *, void *), void *arg);

/* --- kernel_code.c; they take the code cache's lock --- */
/* The vCPU's jump cache is empty, and its code cache may be another. */
void kernel_code_begin(struct cpu *cpu);
/* After all kernel mappings were flushed, or that of @va: links and the jump cache go if they may be of code that has moved. */
void kernel_code_flush(struct cpu *cpu);
void kernel_code_flush_page(struct cpu *cpu, uint64_t va);

/* --- jump_cache.c --- */
/* The kernel's, which may be all zeros, is empty; and what windows hold is of no use. */
void jc_begin(struct cpu *cpu);
/* Another window is in use. */
void jc_use_window(struct cpu *cpu);
/* With the code cache's lock held: what is at @va now leads to @b. */
void jc_insert(struct cpu *cpu, uint64_t va, struct block *b);
/* Puts into the kernel's jump cache of a vCPU that is about to run what its page tables have where it was. */
void jc_fill(struct cpu *cpu, const struct kept_jump *jump, uint64_t njumps);
void jc_flush_window(struct cpu *cpu, unsigned context);	/* which may be all zeros */
void jc_flush_user(struct cpu *cpu);	/* that of the window in use */
void jc_flush_kernel(struct cpu *cpu);
/* Removes what a window's says about code in the page of @va, of 4 KiB, and code that reaches into it. */
void jc_forget_page(struct cpu *cpu, unsigned context, uint64_t va);
/* With the lock held: removes what jump caches of this vCPU say about @b.  Any thread. */
void jc_forget(struct cpu *cpu, const struct block *b);
/* With the lock held: most of their memory, as mmu_give_back(). */
void jc_give_back(struct cpu *cpu);

/* --- scan.c --- */
/* With the lock held: the memory of instructions that were decoded lately, as mmu_give_back(). */
void scan_give_back(void);

/* --- user_code.c --- */
/* As mmu_note_exec(), for the window in use. */
void user_code_note(struct cpu *cpu, uint64_t va, uint32_t mode, const struct translation *tr);
/* A window is of other page tables from now on, or may be: links and jump caches of its code go. */
void user_code_forget(struct cpu *cpu, unsigned context);
/* The same after all its mappings were flushed, if they may be of code that has moved.  Its page tables are those of CR3. */
void user_code_check(struct cpu *cpu, unsigned context);
/* The same after those of the page at @va were, as large as any that code was found in there.  Whether code has moved, or may have. */
bool user_code_check_page(struct cpu *cpu, unsigned context, uint64_t va);
/* Any thread with the code cache's lock: the page with that number is at no known address. */
void user_code_misplace(struct cpu *cpu, uint32_t number);
/*
 * The address at which code at @pa may have been found, if it is in @slot; else 0.  Any thread with the code cache's lock:
 * what it does not find yet, or any more, is not in a jump cache either, or will not be when code runs there again.
 */
uint64_t user_code_at(const struct user_code *u, uint32_t slot, gpa_t pa);

/* --- mmu.c --- */
enum access { ACCESS_READ = MEM_READ, ACCESS_WRITE = MEM_WRITE, ACCESS_EXEC = 4, ACCESS_PROBE = 8 };

struct translation {
	gpa_t gpa;
	uint8_t *host;	/* NULL: not RAM */
	bool writable;	/* and dirty: writes need no walk */
	bool global, user, exec;
	uint8_t shift;	/* of the page's size: 12, 21 or 30 */
};

/* 0, or the vector to raise: 14 with @ret_error set, or 13 for a non-canonical address. */
int mmu_walk(struct cpu *cpu, uint64_t va, unsigned access, bool user, struct translation *ret,
	     uint32_t *ret_error);

enum fill { FILL_OK, FILL_SLOW, FILL_FAULT };
/* Puts the page of @va into the TLB for @rw.  FILL_SLOW: not plain RAM for that access. */
enum fill mmu_fill(struct cpu *cpu, uint64_t va, unsigned rw, bool user, struct translation *ret_tr,
		   int *ret_vector, uint32_t *ret_error);

void mmu_init(struct cpu *cpu);
void mmu_load_cr3(struct cpu *cpu, uint64_t value, bool keep);
void mmu_invlpg(struct cpu *cpu, uint64_t va);
void mmu_invpcid(struct cpu *cpu, unsigned type, uint64_t pcid, uint64_t va);
void mmu_flush_all(struct cpu *cpu);	/* everything, global entries too */
/*
 * Gives most of the memory of user TLBs and jump caches to the host, of a large kernel jump cache, and of instructions that were
 * decoded lately; they fill again.
 * Outside translated code, vectors saved.
 */
void mmu_give_back(struct cpu *cpu);
/* Makes pages of a vCPU's memory zeros that take none of the host's, as far as they lie between the two.  False: they stay. */
bool pages_give_back(const void *from, const void *to);
/* Removes the entries of the page of @va from every TLB of this vCPU, which must not run elsewhere. */
void mmu_forget_page(struct cpu *cpu, uint64_t va);
/* No entry of any TLB of this vCPU lets the page at @host be written any more.  Whether one did, or may have. */
bool mmu_protect_host_page(struct cpu *cpu, uint64_t host);
/*
 * With the code cache's lock held: code for @mode (BLOCK_*) was found at @va, which leads to @tr.  Links and jump caches may say so
 * until it is flushed, and after that if it is still there.
 */
void mmu_note_exec(struct cpu *cpu, uint64_t va, uint32_t mode, const struct translation *tr);

/*
 * Around a look-up for writing and the writes through it: another vCPU that translates
 * code from the page waits meanwhile (see claim_page()).  Must not take the code cache's lock.
 */
void mmu_hold(struct cpu *cpu);
void mmu_drop(struct cpu *cpu);
/*
 * Host address of a byte of RAM reachable for @rw without side effects, or NULL.  Stays
 * in its page.  For writing only between mmu_hold() and mmu_drop().
 */
uint8_t *mmu_host(struct cpu *cpu, uint64_t va, unsigned rw, bool user);
/* Guest memory by linear address, as the CPU itself accesses it.  0, or a vector to raise. */
int mem_load(struct cpu *cpu, uint64_t va, void *dst, unsigned size, bool user, uint32_t *ret_error);
int mem_store(struct cpu *cpu, uint64_t va, const void *src, unsigned size, bool user, uint32_t *ret_error);
/* Makes every page of [va, va+size) present for @rw without accessing it. */
int mem_probe(struct cpu *cpu, uint64_t va, unsigned size, unsigned rw, bool user, uint32_t *ret_error);

/* --- dispatch.c: called by thunks; they return the host address to go on at, or 0 to leave --- */
uint64_t dbt_exit(struct cpu *cpu, uint64_t exit_index);
/* A direct jump from another page met the check in front of block @block_index of the code cache. */
uint64_t dbt_stray(struct cpu *cpu, uint64_t block_index);
uint64_t dbt_miss(struct cpu *cpu);
/*
 * The TLB miss told by cpu->miss_data: where to go on when filling the TLB is all it takes, else 0.
 * The quick one knows only the most frequent cases and is called with guest registers in the
 * host's: it changes none but RAX.
 */
__attribute__((no_caller_saved_registers)) uint64_t dbt_miss_quick(struct cpu *cpu);
uint64_t dbt_miss_fill(struct cpu *cpu);
uint64_t dbt_indirect(struct cpu *cpu);
uint64_t dbt_fault(struct cpu *cpu);
/* The code for cpu->rip in the present mode, after handling what is pending; 0 to leave. */
uint64_t dispatch(struct cpu *cpu);
/* Runs the instruction at cpu->rip alone, with its memory operand at cpu->slow_host. */
uint64_t dispatch_slow(struct cpu *cpu);
void cpu_update_mode(struct cpu *cpu);
/* Guest registers from what a thunk saved inside block @b. */
void cpu_canonicalize(struct cpu *cpu, const struct block *b);

/* --- find.c --- */
/*
 * The block for cpu->rip in @mode, or NULL with an exception pending or cpu->leave set.
 * Jumps that come indirectly again shall find it in the jump cache.
 */
struct block *cpu_find_block(struct cpu *cpu, uint32_t mode, enum arrival arrival);
/* Whether @b may be entered without looking for it. */
bool may_cache(const struct cpu *cpu, const struct block *b);
/* Whether @b can be arrived at that way; sees to it if there is room.  With the code cache's lock held. */
bool has_entry(struct cpu *cpu, struct block *b, enum arrival arrival);

/* --- event.c --- */
void raise_vector(struct cpu *cpu, unsigned vector);
void raise_error(struct cpu *cpu, unsigned vector, uint32_t error);
void raise_page_fault(struct cpu *cpu, uint64_t va, uint32_t error);
/* What mmu_walk() and mem_*() returned. */
void raise_access(struct cpu *cpu, int vector, uint64_t va, uint32_t error);
void deliver_pending(struct cpu *cpu);
void deliver_interrupt(struct cpu *cpu, unsigned vector);
void software_interrupt(struct cpu *cpu, unsigned vector, uint64_t next_rip);
void do_iret(struct cpu *cpu, const struct insn *in);
void do_syscall(struct cpu *cpu, uint64_t next_rip);
void do_sysret(struct cpu *cpu, const struct insn *in);
void do_sysenter(struct cpu *cpu);
void do_sysexit(struct cpu *cpu, const struct insn *in);
void do_far(struct cpu *cpu, const struct insn *in, uint64_t next_rip);
/* Loads a data segment register.  False when an exception was raised. */
bool load_segment(struct cpu *cpu, unsigned seg, uint16_t sel);
uint32_t cpu_rflags(const struct cpu *cpu);
/* Replaces the bits of RFLAGS in @mask. */
void cpu_set_rflags(struct cpu *cpu, uint64_t value, uint64_t mask);

/* --- debug.c --- */
/* cpu->dr[7] or an address it enables, or cpu->debug.outside has changed. */
void debug_update(struct cpu *cpu);
/* MEM_READ and MEM_WRITE: accesses to the page of @va that watchpoints want to see. */
unsigned debug_watched(const struct cpu *cpu, uint64_t va);
/* The present instruction accessed memory: notes the watchpoints it met. */
void debug_accessed(struct cpu *cpu, uint64_t va, unsigned size, unsigned rw);
void debug_port(struct cpu *cpu, uint16_t port, unsigned size);
/* Before the instruction at cpu->rip: true when it must not run, with an exception pending or cpu->leave set. */
bool debug_stops_here(struct cpu *cpu);
/* After an instruction, when cpu->stepping is set: raises or leaves for what it met. */
void debug_after_insn(struct cpu *cpu);
/* #DB with bits @why of DR6. */
void debug_raise(struct cpu *cpu, uint64_t why, enum event_kind kind);

/* --- the interpreter: interpret.h, string.c --- */
/* Interprets @in at cpu->rip: afterwards cpu->rip is next, or an exception is pending. */
void interpret(struct cpu *cpu, const struct insn *in);
void string_insn(struct cpu *cpu, const struct insn *in);
/* Linear address of the memory operand of @in located at cpu->rip. */
uint64_t operand_address(const struct cpu *cpu, const struct insn *in);
uint64_t read_gpr(const struct cpu *cpu, unsigned reg, unsigned size);
void write_gpr(struct cpu *cpu, unsigned reg, unsigned size, uint64_t value);
int msr_read(struct cpu *cpu, uint32_t msr, uint64_t *ret_value);
int msr_write(struct cpu *cpu, uint32_t msr, uint64_t value);
uint64_t guest_tsc(const struct cpu *cpu);
/* Arms the vCPU's host timer for guest TSC @tsc; 0 disarms. */
void dbt_timer_set(struct cpu *cpu, uint64_t tsc);
/* May the code at the present privilege use the port?  SDM vol. 1, 19.5. */
bool port_allowed(struct cpu *cpu, uint16_t port, unsigned size);

/* --- vector.c --- */
/* Gathers and scatters, element by element.  False with an exception pending. */
bool gather_insn(struct cpu *cpu, const struct insn *in);
/* Bit per byte of the memory operand of @in (64 at most) that its mask selects. */
uint64_t active_bytes(struct cpu *cpu, const struct insn *in, unsigned size);

/* --- slow.c --- */
int port_access(struct cpu *cpu, uint16_t port, unsigned size, bool write, uint32_t *value);
/* Device access at @gpa (heavy inside). */
uint64_t mmio_read(struct cpu *cpu, gpa_t gpa, unsigned size);
void mmio_write(struct cpu *cpu, gpa_t gpa, unsigned size, uint64_t value);
/* Starts a slow access of the instruction at cpu->rip; returns code to run or 0. */
uint64_t slow_start(struct cpu *cpu, uint64_t ea, unsigned size, unsigned rw, bool user);
void slow_commit(struct cpu *cpu);
/* The slow access in progress did touch what the guest may not: host address @at in the guard pages. */
void slow_raise(struct cpu *cpu, uint64_t at);

/* The host wrote guest RAM, or guest code is about to: forget translations. */
void dbt_wrote(void *ctx, gpa_t gpa, uint64_t len);
void page_written(struct cpu *cpu, gpa_t gpa, uint64_t len);

static inline void *copy_bytes(void *dst, const void *src, size_t n)
{
	void *d = dst;

	__asm__ volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(n) : : "memory");
	return dst;
}

#define FETCHED 16u

/*
 * Copies @n bytes, FETCHED at most, of guest code inside one page, which another vCPU may be changing; the rest of @dst is
 * undefined.  Each aligned quadword is read at once: a store inside one is seen whole or not at all (SDM vol. 3, 9.1.1).
 */
static inline void fetch_code(uint8_t dst[FETCHED], const uint8_t *src, unsigned n)
{
	const unsigned skip = (uintptr_t)src & 7;
	const uint64_t *at = (const uint64_t *)(const void *)(src - skip);
	uint64_t word[3] = { 0 };

	for (unsigned i = 0; 8 * i < skip + n; i++)
		word[i] = __atomic_load_n(&at[i], __ATOMIC_RELAXED);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t both = (uint64_t)(((unsigned __int128)word[i + 1] << 64 | word[i]) >> 8 * skip);

		__builtin_memcpy(dst + 8 * i, &both, sizeof(both));
	}
}

static inline void *zero_bytes(void *dst, size_t n)
{
	void *d = dst;

	__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(0) : "memory");
	return dst;
}

/* Of the memory operand of @in, or the source of a string instruction. */
static inline uint64_t segment_base(const struct cpu *cpu, const struct insn *in)
{
	return in->mem_seg == SEG_FS ? cpu->fs_base : in->mem_seg == SEG_GS ? cpu->gs_base : 0;
}

/* Whether a non-canonical operand address raises #SS rather than #GP. */
static inline bool through_stack_segment(const struct insn *in)
{
	return in->mem_seg == INSN_REG_NONE && (in->mem_base == RSP || in->mem_base == RBP);
}

static inline bool canonical(uint64_t va)
{
	return (uint64_t)((int64_t)(va << 16) >> 16) == va;
}

enum { VEC_DE, VEC_DB, VEC_NMI, VEC_BP, VEC_OF, VEC_BR, VEC_UD, VEC_NM, VEC_DF, VEC_TS = 10, VEC_NP,
       VEC_SS, VEC_GP, VEC_PF, VEC_MF = 16, VEC_AC, VEC_MC, VEC_XM };

#define CR0_PE 1u
#define CR0_MP 2u
#define CR0_EM 4u
#define CR0_TS 8u
#define CR0_WP (1u << 16)
#define CR0_AM (1u << 18)
#define CR0_PG (1u << 31)
#define CR4_PAE (1u << 5)
#define CR4_PGE (1u << 7)
#define CR4_FSGSBASE (1u << 16)
#define CR4_PCIDE (1u << 17)
#define CR4_OSXSAVE (1u << 18)
#define CR4_DE (1u << 3)
#define DR6_BD (1u << 13)
#define DR6_BS (1u << 14)
#define DR7_GD (1u << 13)
#define EFER_SCE 1u
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)
#define EFER_NXE (1u << 11)
#define ATTR_L (1u << 9)
#define ATTR_DB (1u << 10)
#define ATTR_UNUSABLE (1u << 15)

#endif /* ENGINE_DBT_RUN_H */
