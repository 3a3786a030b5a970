/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the translator: what its files share while one block is made.
 *
 *   scan.c       which instructions, which registers are free, where flags are live
 *   lookup.c     guest address to host address, in front of memory operands
 *   operand.c    an instruction with another operand in place of its own
 *   flags.c      guest flags that can be made again
 *   exits.c      ways out of a block, and the stubs behind it
 *   entry.c      SYSCALL and SYSRET
 *   returns.c    calls and returns by the host's
 *   guess.c      indirect jumps that go where they went before
 *   quick.c      what the interpreter need not do where nothing special is met
 *   loop.c       blocks that jump back to their own start
 *   translate.c  instruction by instruction
 */
#ifndef ENGINE_DBT_TRANSLATOR_H
#define ENGINE_DBT_TRANSLATOR_H

#include "engine/dbt/block.h"
#include "engine/dbt/cpu.h"
#include "engine/dbt/emit.h"
#include "engine/dbt/miss.h"

enum { NO_REG = 16 };

/* A host operand: [base + index << scale + disp]. */
struct operand {
	unsigned base, index, scale;
	int32_t disp;
};

/* Guest flags that can be made again (see flags.c). */
struct remake {
	bool on;
	bool lost;	/* host flags are not the guest's at this point */
	uint8_t kind;
	uint16_t from;	/* registers that they are made from */
	unsigned by;	/* the instruction that set them */
	int64_t moved;	/* what RSP has moved by since */
};

struct miss_stub {
	uint8_t *jump;	/* rel32 to patch */
	uint8_t *retry;	/* where to go when the entry has been filled */
	bool live;	/* the look-up that kept flags */
	uint8_t base;	/* S0 is to be this register + @disp; NO_REG: it is as it should be */
	int32_t disp;
	uint16_t insn;	/* MISS_PLAIN */
	struct remake remake;	/* on: the look-up destroyed flags that are live */
	struct miss_site site;
};

struct exit_stub {
	uint32_t exit;
	uint8_t *jump;	/* rel32 that leads to the stub */
	bool rcx_in_t1;	/* that of emit_jmp_unless_one() */
};

/* A conditional jump out of the middle of a block. */
struct side_exit {
	unsigned insn;	/* its index */
	int64_t off;	/* where it leads, from the block's start */
	uint32_t live;	/* guest flags that must survive */
	uint8_t *jump;	/* rel32 that leads to the rest of it, or NULL */
};

#define SIDE_EXITS_MAX 2	/* more gain nothing, and what is behind them may never run */

/* Operands of a loop whose addresses move together (see loop.c). */
struct stream {
	unsigned base, index, scale;	/* as in struct insn */
	unsigned rw, accesses;
	unsigned holder;	/* host register */
	int64_t lo, hi;	/* bytes [lo, hi) from the registers at the start of the round */
	int64_t step;	/* of the address, a round */
	bool base_moves, index_moves;	/* differ, at some operand, from what they were at the start of the loop */
};

struct loop {
	bool on;
	bool marked;	/* keeps cpu.strips */
	unsigned count;	/* host register: rounds left */
	unsigned nstreams;
	struct stream stream[12];
	int8_t stream_of[BLOCK_INSNS_MAX];	/* by instruction, -1: none */
};

struct translator {
	struct code_cache *cc;
	struct emit e;
	struct block *b;
	struct insn insn[BLOCK_INSNS_MAX];
	uint32_t live[BLOCK_INSNS_MAX + 1];	/* flags live before instruction i */
	uint16_t guest_off[BLOCK_INSNS_MAX + 1];
	struct insn_mark marks[BLOCK_INSNS_MAX + 1];
	unsigned n;
	unsigned s0, s1;	/* scratch registers */
	uint16_t used, written;	/* guest registers the block names, and writes */
	uint64_t va;
	bool user, absolute, code32;
	bool smp;	/* more than one vCPU */
	const uint8_t *page;	/* host bytes of the guest page */
	uint64_t lines;	/* struct code_page.lines of it */
	struct cpu *cpu;
	uint64_t other_va;	/* another page that was looked at last, and its host bytes or NULL */
	const uint8_t *other;
	bool timid;	/* do not look beyond the page */
	uint32_t number;	/* struct code_page.number of its page */

	/* group in force: base register, how far it has moved since the check */
	unsigned group_base;
	int64_t group_shift, group_lo, group_hi;	/* offsets from the base at the check */
	bool group_on, group_write;

	struct remake remake;
	struct loop loop;
	struct exit *last_jump;	/* emitted last of all jumps that are exits */

	uint8_t *strayed;	/* rel32 that leads to emit_strayed_return(), or NULL */
	struct side_exit side[SIDE_EXITS_MAX];
	unsigned nsides;

	struct miss_stub miss[BLOCK_INSNS_MAX * 3];
	unsigned nmiss;
	struct exit_stub stub[16 + BLOCK_INSNS_MAX * 3];
	unsigned nstubs;
};

/* Offset from GS of an array of the TLB that the block uses. */
static inline uint32_t tlb_field(const struct translator *t, size_t field)
{
	return (uint32_t)((t->user ? GS_UTLB : GS_KTLB) + field);
}

/* Field @f of the side for accesses @rw. */
#define TLB_FIELD(t, rw, f) tlb_field(t, (rw) & MEM_WRITE ? offsetof(struct tlb, write.f) : offsetof(struct tlb, read.f))

/* --- scan.c --- */
/* Decodes until control flow, page end or a limit.  False: nothing decodable here. */
bool scan(struct translator *t, const uint8_t *bytes, const uint8_t *pa2_bytes);
/* The side exit that instruction i is, or NULL. */
struct side_exit *side_exit_at(struct translator *t, unsigned i);
/* Guest flags live before the code at guest offset @off, as far as a look ahead tells. */
uint32_t live_at(struct translator *t, int64_t off);
/* Fills t->live[], side_exit.live and block.live_in. */
void flow_flags(struct translator *t);
/* True when dbt_exit() interprets the instruction. */
bool is_helper(const struct insn *in, uint32_t mode);
/*
 * Registers an instruction names.  RSP is never scratch, and RAX, RCX, RDX are
 * kept out of the choice because sequences here use them.
 */
uint16_t names(const struct insn *in);
/* A host register that the block does not name, from now on scratch; NO_REG when there is none. */
unsigned borrow(struct translator *t);

/* --- lookup.c --- */
/* What instruction i does to memory through a plain base register: one access, or none. */
struct simple_access {
	bool is, other;	/* @other: touches memory or scratch in a way that ends groups */
	unsigned base, rw;
	int64_t disp;
	uint64_t size;
};

struct simple_access access_of(const struct translator *t, unsigned i);
/* How instruction i moves @base: true with the step, or false when it is overwritten otherwise. */
bool base_step(const struct insn *in, unsigned base, int64_t *ret_step);
/* Address of guest offset @off of this block in the block's own terms. */
int64_t block_va(const struct translator *t, int64_t off);
/*
 * Checks [S0, S0 + size).  Then S0 + S1 is the host address; with @addend, S1 is
 * what guest and host address differ by.  @live: guest flags must survive.
 */
void emit_check(struct translator *t, uint8_t *retry, uint64_t size, unsigned rw, bool live,
		bool addend, enum miss_instead instead);
/* S0 = linear address of the memory operand.  Uses S1 for segment bases.  Flags kept. */
void emit_ea(struct translator *t, const struct insn *in, unsigned i, int64_t adjust);
/* @reg = guest address relative to nothing: absolute, or through vbase.  Flags kept. */
void emit_guest_va(struct translator *t, unsigned reg, int64_t va);
/* S0 += segment base of the operand.  Uses S1.  Flags kept. */
void emit_segment_base(struct translator *t, const struct insn *in);
/* @reg = its low @size bytes, 2 or 4.  Flags kept. */
void emit_truncate(struct emit *e, unsigned reg, unsigned size);
/* Any operand; ends the group.  S0, S1 hold its two halves. */
struct operand lookup_any(struct translator *t, unsigned i, int64_t adjust, uint64_t size, unsigned rw);
/* Makes [base + disp] of a simple access reachable; S1 = addend. */
struct operand lookup_simple(struct translator *t, unsigned i, const struct simple_access *a);
struct operand lookup_stack(struct translator *t, unsigned i, int32_t disp, uint64_t size, unsigned rw);
/* [register + disp] with 32-bit wrap-around in 32-bit code: stack accesses. */
struct operand lookup_stack32(struct translator *t, unsigned i, unsigned base, int32_t disp, uint64_t size,
				     unsigned rw);
unsigned pop_register(const struct insn *in);

/* --- operand.c --- */
/* Such an instruction, whole. */
void emit_bit_string(struct translator *t, unsigned i);
/* As they are. */
void emit_bytes(struct emit *e, const uint8_t *bytes, unsigned n);
/* An instruction that names AH..DH takes no REX: bring the address into a low register. */
void emit_high_byte(struct translator *t, const struct insn *in, struct operand m);
/*
 * MASKMOVQ, MASKMOVDQU: RDI becomes the host address for the moment.  A fault of
 * the store itself can only happen on the guard pages, where slow_raise() puts RDI
 * back; an x87 exception that MASKMOVQ would report comes before.
 */
void emit_through_rdi(struct translator *t, const struct insn *in, struct operand m);
/* The instruction with its memory operand replaced by @m. */
void emit_with_operand(struct emit *e, const struct insn *in, struct operand m);
/* BT, BTS, BTR, BTC m, r: the register also selects the word. */
bool is_bit_string(const struct insn *in);

/* --- exits.c --- */
/*
 * Goes to the guest address in T0 through the jump cache, @user: of user code.  Flags survive.
 * This polls too: see ask_to_exit().
 */
void emit_dispatch(struct translator *t, bool user);
/* Where emit_dispatch() arrives, in front of the block's code.  Returns the address. */
uint8_t *emit_entry(struct emit *e, const struct block *b);
/* Where direct jumps from other pages do, and those by call if @called.  Returns the address. */
uint8_t *emit_checked_entry(struct emit *e, const struct code_cache *cc, const struct block *b, uint32_t number, bool called);
/* The jump that is exit @x. */
void emit_exit_jump(struct translator *t, struct exit *x);
/* Hands exit @x to dbt_exit(), here and now; an EXIT_GUESS with its target in T0. */
void emit_exit_now(struct translator *t, const struct exit *x);
void emit_exit_stub(struct translator *t, const struct exit_stub *s);
/* Everything an exit to guest offset @off needs, at the current place.  @live: guest flags that must survive. */
void emit_goto(struct translator *t, int64_t off, uint32_t live);
/* The same as a CALL, on the stack of returns.c.  What is to be polled is polled in front of that. */
void emit_call_exit(struct translator *t, int64_t off, uint32_t live);
void emit_poll_backward(struct translator *t, int64_t off, uint32_t live);
/* Whether guest offset @off is in the block's page. */
bool same_page(const struct translator *t, int64_t off);
/* Has dbt_exit() interpret instruction i, the last one. */
void emit_helper(struct translator *t, unsigned i);
/* The same behind leave_state(). */
void emit_helper_exit(struct translator *t, unsigned i);
void emit_jcc_exits(struct translator *t, const struct insn *in);
/*
 * A conditional jump in the middle of the block, @in, and behind the block what the way out takes if that is
 * more than the jump.
 */
void emit_side_exit(struct translator *t, const struct insn *in, struct side_exit *side);
void emit_rest_of_side_exit(struct translator *t, const struct side_exit *side);
/* LOOP, LOOPE, LOOPNE, JRCXZ, JECXZ. */
void emit_loop_exits(struct translator *t, const struct insn *in);
void emit_miss_stub(struct translator *t, struct miss_stub *m);
/*
 * Jumps when another thread wants the vCPU; returns the place of rel32.  Destroys T1.  @live: flags survive, and where that leads RCX
 * is in T1 (emit_jmp_unless_one()).
 */
uint8_t *emit_poll_jump(struct emit *e, bool live);
/* T1 = 1 if T0 + @back is vbase where the page with that number, of user code, is (window_private.nbase).  Flags kept. */
void emit_compare_place(struct emit *e, uint32_t number, int32_t back);
/* vbase = T0 + @back.  Destroys T1.  Flags kept. */
void emit_set_vbase(struct emit *e, int32_t back);
/* Leaves at a poll when another thread wants the vCPU. */
void emit_poll(struct translator *t, int64_t target_off, bool live);
void enter_state(struct translator *t);
/* Registers as every block expects them; T0 and T1 are free afterwards. */
void leave_state(struct translator *t);
/* The same when S0 holds a value wanted in T0 afterwards. */
void leave_state_keep_s0(struct translator *t);
struct exit *new_exit(struct translator *t, unsigned kind, int64_t off);

/* --- returns.c --- */
/* Whether the block's calls and returns are paired with the host's. */
bool pairs_calls(const struct translator *t);
/* Behind leave_state() of a call to guest offset @off that has pushed its return address.  T0, T1 are free.  Whole. */
void emit_paired_call(struct translator *t, int64_t off);
/* The same for any other call: what follows goes to its target. */
void emit_paired_call_indirect(struct translator *t);
/* Where calls arrive. */
void emit_leave_returns(struct emit *e);
/* Goes to the guest address in T0, by a return. */
void emit_paired_return(struct translator *t);
/* Behind the block: where the return of its call went somewhere else. */
void emit_strayed_return(struct translator *t);

/* --- guess.c --- */
/* Whether instruction i is an indirect jump or call that likely goes to one place only. */
bool may_guess(const struct translator *t, unsigned i);
/* Goes to the guest address in T0, which is guessed.  Flags survive. */
void emit_guess(struct translator *t);

/* --- flags.c --- */
/* Whether a look-up for instruction i must keep the host's flags. */
bool flags_keep(struct translator *t, unsigned i);
/* Host flags are the guest's from here on.  Destroys @tmp. */
void flags_settle(struct translator *t, unsigned tmp);
/* The code that makes them, whatever has become of them. */
void flags_make(struct translator *t, const struct remake *m, unsigned tmp);
/* To be called around the emission of every instruction. */
void flags_before(struct translator *t, unsigned i);
void flags_after(struct translator *t, unsigned i);

/* --- loop.c --- */
/* True, with registers assigned, when the block is to be made by emit_loop(). */
bool loop_plan(struct translator *t);
void emit_loop(struct translator *t);
/* The host operand of instruction i, which is in a stream. */
struct operand loop_operand(const struct translator *t, unsigned i);
/* Counts cpu.strips on where a loop begins to hold look-ups for writing, and where it ends.  Destroys S0, keeps flags. */
void emit_strip_mark(struct translator *t);

/* --- entry.c --- */
/* Instructions that change the privilege and need not leave translated code. */
bool is_fast_entry(const struct insn *in, uint32_t mode);
/* Such an instruction, whole. */
void emit_fast_entry(struct translator *t, unsigned i);

/* --- quick.c --- */
/* Instructions that leave to the interpreter only in special cases, and such as never do. */
bool is_quick(const struct insn *in, uint32_t mode);
/* The former. */
bool quick_may_leave(const struct insn *in, uint32_t mode);
/* Such an instruction, whole.  It does not end the block. */
void emit_quick(struct translator *t, unsigned i);

/* --- translate.c --- */
/* Returns false when the instruction ended the block. */
bool emit_insn(struct translator *t, unsigned i);
/* Host code for instruction i begins here. */
void mark_insn(struct translator *t, unsigned i);

#endif /* ENGINE_DBT_TRANSLATOR_H */
