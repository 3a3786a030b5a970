/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translated blocks and the code cache that holds them.
 *
 * A block is the translation of guest code inside one guest-physical page that
 * is entered at its start and may be left at conditional jumps on the way (an
 * instruction that crosses into the next page makes a block of its own).  It is
 * found by physical address and mode, so remapping a page costs nothing; writing
 * to the page drops its blocks.
 *
 *   direct exits   jmp rel32, first to a stub that asks dbt_exit() for the
 *                  target, then patched to the target ("linked"); from another
 *                  page of relocatable code to a check in front of it, which
 *                  asks whether the target is there (user_code.c)
 *   indirect exits through the jump cache of the window (cpu.h)
 *
 * Absolute blocks (all of whose addresses fit in 32 bits, sign-extended: the
 * kernel) have their virtual address built in.  Relocatable blocks compute
 * addresses from cpu.vbase, so processes that map the same page at different
 * addresses share them.
 *
 * One code cache serves all vCPUs of a VM.  Its tables are guarded by
 * code_cache.lock; translated code runs without it.
 */
#ifndef ENGINE_DBT_BLOCK_H
#define ENGINE_DBT_BLOCK_H

#include "engine/dbt/lock.h"
#include "isa/insn.h"
#include "vmm/guest_mem.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct cpu;
struct err;

/* What besides the bytes decides a translation. */
enum {
	BLOCK_USER = 1,	/* CPL 3: user TLB, no privileged instructions */
	BLOCK_32 = 2,	/* 32-bit code */
	BLOCK_NO_FPU = 4,	/* CR0.TS or EM: FPU instructions raise #NM */
	BLOCK_SINGLE = 8,	/* one instruction, no merged look-ups */
	BLOCK_SLOW = 16,	/* one instruction whose operand is at cpu.slow_host */
	BLOCK_PLAIN = 32,	/* each operand is looked up by itself; a loop, for one round */
	BLOCK_BREAK = 64,	/* the vCPU has instruction breakpoints: see debug.c */
};

/* Whether the address of code is built into its block: it, its negative and those nearby fit in 32 bits, sign-extended. */
static inline bool is_absolute(uint64_t va, uint32_t mode)
{
	return !(mode & BLOCK_USER) && va == (uint64_t)(int32_t)va && va + 0x10000 == (uint64_t)(int32_t)(va + 0x10000) &&
	       va != (uint64_t)INT32_MIN;
}

#define VBASE_LOW 1u	/* so that no vbase is 0 */
#define VBASE_REACH (1ll << 30)	/* how far from vbase a block may be */
#define BLOCK_INSNS_MAX 64

struct exit {
	struct block *from;
	struct block *to;	/* NULL while not linked */
	struct exit *next_to;	/* list of exits linked to the same block */
	uint8_t *patch;	/* rel32 of a jump, or CALL, in writable code memory */
	uint8_t *stub;	/* where rel32 leads when not linked (writable address) */
	struct insn *insn;	/* EXIT_HELPER: the instruction to interpret */
	int64_t target;	/* guest address; relative to vbase in relocatable blocks */
	uint32_t dead;	/* arithmetic flags that @from took to be dead at the target */
	uint8_t kind;	/* enum exit_kind */
	bool leaves_page;	/* of relocatable code: the target need not be where it was seen */
	bool calls;	/* is a CALL: see returns.c */
	bool returns;	/* where a call returns to, right behind it */
	bool near;	/* EXIT_GUESS: is linked to what is near */
	uint8_t wrong;	/* EXIT_GUESS: how often the link has been */
	uint8_t relinks;	/* of at most EXIT_RELINKS_MAX; then it goes through a jump cache */
};

#define EXIT_RELINKS_MAX 16u

/*
 * EXIT_PLAIN: from inside the block, to the BLOCK_PLAIN block for the rest of it.
 * EXIT_GUESS: an indirect jump; struct exit.target is behind it.
 */
enum exit_kind { EXIT_DIRECT, EXIT_PLAIN, EXIT_POLL, EXIT_HELPER, EXIT_COMMIT, EXIT_GUESS };

/* Host code of instruction i starts at host_off[i]. */
struct insn_mark {
	uint16_t host_off, guest_off;
};

struct block {
	/* What block_find() reads, in one line of the host's cache. */
	gpa_t pa;
	uint64_t va;	/* absolute blocks */
	struct block *hash_next;
	uint32_t mode;
	bool absolute, valid;
	bool dormant;	/* not valid, but will be where guest memory is as it was: see dormant.c */
	bool linked;	/* in the list code_cache.linked */

	gpa_t pa2;	/* second page of a crossing instruction, or ~0 */
	int64_t off;	/* relocatable: guest address - vbase */
	uint16_t len;	/* guest bytes */
	uint16_t ninsns;
	bool cached, cached_elsewhere;	/* has been in a jump cache: under cached_va, under other addresses too */
	uint8_t careful;	/* BLOCK_SLOW: struct insn.mem_careful */
	bool peculiar;	/* BLOCK_SLOW: struct insn.mem_masked or .mem_implicit */
	bool contested;	/* elsewhere other code, which reads more flags, is at its address */
	uint64_t cached_va;
	uint64_t ahead;	/* bit per 64 bytes of the page beyond the block that decided which flags are dead */
	uint32_t live_in;	/* arithmetic flags that the block reads, as it finds them */
	uint16_t borrowed;	/* host registers used as scratch; the guest's are in cpu.spill[] */
	uint16_t at_home;	/* which of R10, R11 are in the host registers of that name */
	uint8_t *code;	/* executable address; stubs are elsewhere */
	uint8_t *entry;	/* where indirect jumps arrive, or NULL: see emit_entry() */
	uint8_t *checked;	/* where direct jumps from other pages do, or NULL: see emit_checked_entry() */
	bool called;	/* calls arrive in front of that: see block_at() */
	uint32_t code_len;
	uint32_t first_exit, nexits;
	struct insn_mark *marks;	/* ninsns of them */
	const uint8_t *seen;	/* its page when it was translated, in the arena; NULL: not recorded */
	struct exit *incoming;
	struct block *page_next, *page2_next, *linked_next;
};

/* Bits of the 64-byte lines that bytes @first to @last, of one page, lie in. */
static inline uint64_t line_mask(gpa_t first, gpa_t last)
{
	unsigned a = (unsigned)(first & 4095) / 64, b = (unsigned)(last & 4095) / 64;

	return (~0ull << a) & (~0ull >> (63 - b));
}

/*
 * Blocks of one guest page.  All its relocatable blocks are relative to the same
 * vbase: jumps between them can be linked whatever that is at the moment.
 */
struct code_page {
	gpa_t page;
	struct block *blocks;
	int64_t off;	/* of the page's first byte, as struct block.off */
	uint32_t number;	/* of the page together with @off: see window_private.nbase */
	bool has_off;	/* and number */
	bool timid;	/* looking ahead from here into other pages has misled: do not */
	uint8_t moves;	/* how often code_page_move() changed that */
	uint64_t lines;	/* bit per 64 bytes that hold translated code */
	const uint8_t *seen;	/* the page, in the arena, when something of it was recorded last; NULL: not yet */
	struct sleeper *sleeper;	/* that its blocks were when they were woken; NULL: they are new */
	struct code_page *next;
};

/* Blocks of a page of a program, wherever that will be: see dormant.c.  In the arena. */
struct sleeper {
	uint64_t content;	/* a hash of it */
	const uint8_t *seen;	/* the page, in the arena */
	struct block *blocks;	/* by page_next */
	int64_t off;	/* as in struct code_page */
	uint32_t number;
	bool timid;
	struct sleeper *next;
};

#define CODE_CACHE_BYTES (256ull << 20)
#define CODE_CACHE_ALIGN (2ull << 20)
#define COLD_START (160ull << 20)	/* behind it is what runs seldom: stubs */
#define BLOCKS_MAX (1u << 20)
#define EXITS_MAX (4u << 20)
#define BLOCK_HASH_BITS 18
#define PAGE_HASH_BITS 14
#define SLEEPER_HASH_BITS 11
#define KERNEL_PAGES 8192u	/* a power of two */

/*
 * All of it, this struct too, lies in one range of addresses, so that it means the same in another
 * process that has it at the same place: see store.c.
 */
struct code_cache {
	struct lock lock;
	int fd;
	uint8_t *base;	/* of that range */
	uint8_t *rw, *rx;	/* two mappings of the same memory */
	size_t size, used;	/* bytes; used: of those in front of COLD_START */
	size_t cold;	/* where the next stub goes */
	const struct exit *end;	/* the jump in front of @used, if there is one */
	size_t base_used;	/* bytes in front that resets keep */
	struct block *blocks;	/* in order of code address */
	uint32_t nblocks;
	struct exit *exits;
	uint32_t nexits;
	uint8_t *arena;	/* marks and instructions */
	size_t arena_used, arena_size;
	struct block *hash[1u << BLOCK_HASH_BITS];
	struct code_page *pages[1u << PAGE_HASH_BITS];
	struct kernel_page {
		uint64_t va;	/* its low 12 bits are those of kernel_epoch: of others it is none */
		gpa_t pa;
	} kernel_page[KERNEL_PAGES];	/* by a hash of va */
	uint32_t nkernel_pages;	/* more than half: there were too many */
	uint32_t kernel_epoch;	/* how often they were forgotten, no multiple of 4,096; those of before may be in jump caches of other vCPUs still */
	struct block *linked;	/* absolute blocks that something has jumped to directly since kernel_code_forget() */
	const struct mem *mem;
	uint32_t nnumbers;	/* of pages of relocatable code: struct code_page.number */
	void (*on_drop)(void *ctx, const struct block *b);	/* a block is no longer valid */
	void (*on_misplace)(void *ctx, uint32_t number);	/* a page's code is no longer where it was */
	void *ctx;	/* of both */
	_Atomic uint8_t *page_flags;	/* per guest page in RAM order: PAGE_HAS_CODE ... */
	uint64_t npages;
	uint64_t generation;	/* bumped by a full flush */
	bool recording;	/* for dormant_all() */
	struct sleeper *sleepers[1u << SLEEPER_HASH_BITS];
	uint32_t nsleepers;
	uint64_t break_at[64];	/* bit per byte of a page: BLOCK_BREAK blocks end there */
	/* Units of code shared with other processes, see own.c; in each a power of two of bytes.  0 bits: there are none. */
	unsigned unit_bits;
	uint8_t *spare_rw, *spare_rx;	/* mappings of our own memory for what is shared in rw and rx */
	uint64_t shared[CODE_CACHE_BYTES / 4096 / 64];
	uint8_t heat[2048];	/* of exits in there that have no link */
};

/*
 * Marks the page as held in some TLB for writing when @writable, and returns its
 * flags; if they forbid writing the mark is not made.
 */
uint8_t code_page_note_access(struct code_cache *cc, gpa_t gpa, bool writable);
/* From now on BLOCK_BREAK blocks end in front of the place of @va in its page.  Takes the lock. */
void code_break_at(struct code_cache *cc, uint64_t va);

static inline bool code_breaks_at(const struct code_cache *cc, uint64_t addr)
{
	return cc->break_at[(addr & 4095) / 64] >> (addr & 63) & 1;
}

enum { PAGE_HAS_CODE = 1, PAGE_CLEAN = 2 /* dirty log wants the next write */,
       PAGE_WRITE_CACHED = 4 /* some TLB may let it be written */ };

int code_cache_create(const struct mem *mem, struct code_cache **ret_cache, struct err *err);
/* The same at address @base, a multiple of CODE_CACHE_ALIGN; -EEXIST when something else is there. */
int code_cache_create_at(uint64_t base, const struct mem *mem, struct code_cache **ret_cache, struct err *err);
void code_cache_destroy(struct code_cache *cc);
/* Whether @cc is where one at @base, for the same memory, would be. */
bool code_cache_in_way(const struct code_cache *cc, uint64_t base);

struct code_part {
	size_t start, bytes;	/* in the code cache */
	uint64_t offset;	/* in a file, of pages */
};

/*
 * Takes @parts of file @fd in the place of its code, without copying more than the ends of each.  0 or a
 * negative errno: then the cache is of no use.
 */
int code_cache_share(struct code_cache *cc, int fd, const struct code_part *parts, unsigned nparts);
/* The same as copies that are ours alone. */
int code_cache_copy(struct code_cache *cc, int fd, const struct code_part *parts, unsigned nparts);

/* --- own.c, with the lock held --- */
/* Has @len bytes at @rw be ours alone, to be changed.  False: there is no memory for it. */
bool code_own(struct code_cache *cc, const uint8_t *rw, size_t len);
/* Whether to change the exit at @rw, which was taken once more: always where it is ours already. */
bool code_worth_owning(struct code_cache *cc, const uint8_t *rw);
/* code_own() for everything that is shared, whose contents are lost. */
void code_own_all(struct code_cache *cc);

/* Index of the page of @gpa in RAM order, or ~0 outside RAM. */
uint64_t code_page_index(const struct code_cache *cc, gpa_t gpa);
uint8_t code_page_flags(const struct code_cache *cc, gpa_t gpa);

/* --- kernel_code.c, with the lock held --- */
/*
 * Kernel code was found at @va, which leads to @pa: a link or a jump cache may say so until kernel mappings are flushed, and
 * after that if they still do.
 */
void kernel_code_note(struct code_cache *cc, uint64_t va, gpa_t pa);
/* Undoes all direct jumps between absolute blocks and forgets those pages: mappings have changed. */
void kernel_code_forget(struct code_cache *cc);

/* --- dormant.c, with the lock held --- */
struct block_source;
/* Records what is about to be translated; @src is then of what was recorded. */
void dormant_note(struct code_cache *cc, struct block_source *src);
/* A block from another boot that is right for what @page, at @pa's page, has now; or NULL.  The page is claimed. */
struct block *dormant_wake(struct code_cache *cc, gpa_t pa, uint32_t mode, uint64_t va, const uint8_t *page);
/* Drops all blocks; those that were recorded and those of programs are then dormant.  No vCPU may be inside translated code. */
void dormant_all(struct code_cache *cc);
/*
 * Has the blocks of the page at @page, of a program, sleep until memory has the page again as it is now.  Others are
 * dropped, all if there is no room.
 */
void dormant_page(struct code_cache *cc, gpa_t page, const uint8_t *host);
/* Wakes those of a page that has no blocks and is claimed.  False: there are none. */
bool dormant_wake_page(struct code_cache *cc, gpa_t page, const uint8_t *host);

/* --- with the lock held --- */
/* Where blocks with that place and mode are listed; and lists @b there. */
struct block **block_chain(struct code_cache *cc, gpa_t pa, uint32_t mode);
void block_list(struct code_cache *cc, struct block *b);
/* Empties the tables that lead to blocks: nothing is known of the guest's pages. */
void code_forget_blocks(struct code_cache *cc);
/* The list of a page runs through page_next of blocks that start in it and page2_next of others. */
struct block **block_next_in(struct block *b, gpa_t page);
/* What is known of a page, or NULL. */
struct code_page *code_page_find(struct code_cache *cc, gpa_t page);
/* The same, made when missing; NULL: there is no room. */
struct code_page *code_page_get(struct code_cache *cc, gpa_t page);
struct block *block_find(struct code_cache *cc, gpa_t pa, uint32_t mode, uint64_t va);
/* Registers a block that translate.c filled in. */
void block_insert(struct code_cache *cc, struct block *b);
void *code_arena(struct code_cache *cc, size_t bytes);
/* Makes @x jump straight to @to, or to what is to be checked first. */
void exit_link(struct code_cache *cc, struct exit *x, struct block *to);
/* The same at @at, writable, which is code for just that. */
void exit_link_at(struct code_cache *cc, struct exit *x, struct block *to, const uint8_t *at);
/* Undoes that, if it is linked. */
void exit_unlink(struct code_cache *cc, struct exit *x);
/* Has @x, which cannot stay linked to one block, go to @code: to exit_dispatch()'s. */
void exit_divert(struct code_cache *cc, struct exit *x, uint8_t *code);
/*
 * True when the block that @x comes from was right about the flags that @to reads.
 * Otherwise it is dropped, and blocks of its page will assume less.
 */
bool exit_flags_agree(struct code_cache *cc, const struct exit *x, const struct block *to);
/* Instead of @b, @now is what a direct jump from another page went to: those to @b are made anew. */
void block_strayed(struct code_cache *cc, struct block *b, const struct block *now);
/* The page's code is at no known address any more. */
void code_page_misplace(struct code_cache *cc, const struct code_page *p);
/* Gives the page of relocatable code its offset, and a number with it. */
void code_page_base(struct code_cache *cc, struct code_page *p, int64_t off);
/* Drops the page's blocks so that new ones have offset @off from its start.  False: too often already. */
bool code_page_move(struct code_cache *cc, gpa_t page, int64_t off);
void block_unlink_incoming(struct code_cache *cc, struct block *b);
/* Takes @b, valid until now, out of what finds blocks, but for the list of its page; links stay. */
void block_detach(struct code_cache *cc, struct block *b);
/* Drops all blocks that touch guest bytes [@gpa, @gpa + @len).  Returns how many. */
unsigned code_invalidate(struct code_cache *cc, gpa_t gpa, uint64_t len);
/* Drops one block. */
void block_remove(struct code_cache *cc, struct block *b);
/* True when less than a safe reserve is left in any table. */
bool code_cache_full(const struct code_cache *cc);
/* Forgets everything.  No vCPU may be inside translated code. */
void code_cache_reset(struct code_cache *cc);
/* The block whose code contains host address @pc, or NULL. */
struct block *block_of_pc(struct code_cache *cc, uint64_t pc);
/* Guest offset (from b->pa) of the instruction whose code contains @pc. */
unsigned block_guest_off(const struct block *b, uint64_t pc);

/* How code is come to. */
enum arrival { ARRIVE_WITHIN, ARRIVE_INDIRECT, ARRIVE_FROM_PAGE, ARRIVE_BY_CALL };

/* How a direct exit comes to its target. */
static inline enum arrival exit_arrival(const struct exit *x)
{
	return x->calls ? ARRIVE_BY_CALL : x->leaves_page ? ARRIVE_FROM_PAGE : ARRIVE_WITHIN;
}

#define CALLED_BYTES 12	/* of emit_leave_returns(), in front of struct block.checked */

/* Where what comes that way enters the block; NULL: it has no such entry. */
const uint8_t *block_at(const struct block *b, enum arrival arrival);

/* What translate() makes a block of. */
struct block_source {
	gpa_t pa, pa2;	/* of its first instruction; of the next page, or ~0 */
	uint64_t va;
	const uint8_t *bytes, *bytes2;	/* host addresses of the code; of the next page, or NULL when that is not executable */
	uint32_t mode;
	enum arrival arrival;	/* what it has an entry for in front of it */
	const uint8_t *seen;	/* what @bytes are in, when they were recorded: see dormant.c */
};

/* Translates the block, and where the call at its end returns to, and inserts them.  NULL: there is no room.  Lock held. */
struct block *translate(struct code_cache *cc, struct cpu *cpu, const struct block_source *src);

/*
 * Makes the entry of a block that was translated without it, for an arrival that needs one.  False: the cache is full, or its
 * page has no number that can be asked for.  Lock held.
 */
bool block_make_entry(struct code_cache *cc, struct block *b, enum arrival arrival);

/* --- guess.c, with the lock held --- */
/* Links @x, an EXIT_GUESS, to a check whether it goes to @to. */
void guess_make(struct code_cache *cc, struct exit *x, struct block *to);

/*
 * Makes code that goes to the target of @x through the jump cache.  Writable
 * address, or NULL when the cache is full.  Lock held.
 */
uint8_t *exit_dispatch(struct code_cache *cc, const struct exit *x);

#endif /* ENGINE_DBT_BLOCK_H */
