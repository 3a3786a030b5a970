/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page faults anywhere in blocks and loops find exact state.  A piece of code runs over
 * pages that are absent or read-only; the handler notes the whole state, maps the page
 * and returns.  A model of the piece, in C, makes the same accesses and says which
 * faults there must be, with which registers, and what registers and memory end as.
 */
#include "guest.h"

#define VA 0x5000000000ull
#define PA 0x2000000ull
#define PAGES 64
#define MODEL 0x2800000ull	/* the model's memory: what is at VA + n there is at MODEL + n here */
#define FAULTS_MAX 512

struct regs {
	uint64_t rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, rsp;
};
#define NREGS 15	/* compared always; RSP where the model has it */

struct fault {
	struct regs regs;
	uint64_t cr2, error, rip;
};

/* Why an access faults: a page that is absent comes read-only or writable. */
enum { ABSENT = 1, READ_ONLY = 2 };
enum { READ = 0, WRITE = 2 };

static volatile unsigned ngot;
static struct fault got[FAULTS_MAX], want[FAULTS_MAX];
static unsigned nwant;
static uint8_t page_state[PAGES], model_state[PAGES];
static uint64_t fault_stack[512];

/* --- The machine's side --- */

static uint64_t flags_of(uint8_t state)
{
	return state & ABSENT ? 0 : state & READ_ONLY ? PTE_P : PTE_P | PTE_W;
}

static void set_page(unsigned i, uint8_t state)
{
	page_state[i] = state;
	map(VA + i * 4096ull, PA + i * 4096ull, 1, flags_of(state));
}

static void on_fault(struct trap_frame *f)
{
	struct fault *g = &got[ngot];
	uint64_t cr2, page;

	asm volatile("mov %%cr2, %0" : "=r"(cr2));
	page = (cr2 - VA) / 4096;
	if (ngot == FAULTS_MAX || page >= PAGES || !page_state[page]) {
		print("fault at ");
		print_hex(cr2);
		print("\n");
		guest_exit(2);
	}
	*g = (struct fault){ { f->rax, f->rcx, f->rdx, f->rbx, f->rbp, f->rsi, f->rdi, f->r8, f->r9, f->r10, f->r11,
			       f->r12, f->r13, f->r14, f->r15, f->rsp }, cr2, f->error, f->rip };
	ngot++;
	set_page((unsigned)page, page_state[page] & ABSENT ? page_state[page] & READ_ONLY : 0);
}

/* Faults get a stack of their own, so that RSP may walk over absent pages. */
static void use_own_stack(void)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) idtr, gdtr;
	uint64_t *gdt, tss;

	asm volatile("sidt %0\n\tsgdt %1" : "=m"(idtr), "=m"(gdtr));
	gdt = (uint64_t *)gdtr.base;
	tss = (gdt[6] >> 16 & 0xffffff) | (gdt[6] >> 56) << 24 | gdt[7] << 32;
	write64(tss + 0x24, (uint64_t)(fault_stack + 512));	/* IST 1 */
	*(volatile uint8_t *)(idtr.base + 14 * 16 + 4) = 1;
}

/* Loads all registers but RSP from @r, calls @code, and stores them back. */
void run_code(struct regs *r, const void *code);
asm(".text\nrun_code:\n\tpush %rbx\n\tpush %rbp\n\tpush %r12\n\tpush %r13\n\tpush %r14\n\tpush %r15\n\t"
    "push %rdi\n\tpush %rsi\n\t"
    "mov (%rdi), %rax\n\tmov 8(%rdi), %rcx\n\tmov 16(%rdi), %rdx\n\tmov 24(%rdi), %rbx\n\tmov 32(%rdi), %rbp\n\t"
    "mov 40(%rdi), %rsi\n\tmov 56(%rdi), %r8\n\tmov 64(%rdi), %r9\n\tmov 72(%rdi), %r10\n\tmov 80(%rdi), %r11\n\t"
    "mov 88(%rdi), %r12\n\tmov 96(%rdi), %r13\n\tmov 104(%rdi), %r14\n\tmov 112(%rdi), %r15\n\tmov 48(%rdi), %rdi\n\t"
    "call *(%rsp)\n\t"
    "add $8, %rsp\n\txchg %rdi, (%rsp)\n\t"
    "mov %rax, (%rdi)\n\tmov %rcx, 8(%rdi)\n\tmov %rdx, 16(%rdi)\n\tmov %rbx, 24(%rdi)\n\tmov %rbp, 32(%rdi)\n\t"
    "mov %rsi, 40(%rdi)\n\tmov %r8, 56(%rdi)\n\tmov %r9, 64(%rdi)\n\tmov %r10, 72(%rdi)\n\tmov %r11, 80(%rdi)\n\t"
    "mov %r12, 88(%rdi)\n\tmov %r13, 96(%rdi)\n\tmov %r14, 104(%rdi)\n\tmov %r15, 112(%rdi)\n\t"
    "pop %rax\n\tmov %rax, 48(%rdi)\n\t"
    "pop %r15\n\tpop %r14\n\tpop %r13\n\tpop %r12\n\tpop %rbp\n\tpop %rbx\n\tret\n");

/* --- The model's side --- */

static void touch_page(const struct regs *r, uint64_t va, uint64_t rw, uint64_t rip)
{
	uint8_t *state = &model_state[(va - VA) / 4096];

	while (*state & ABSENT || (*state & READ_ONLY && rw & WRITE)) {
		if (nwant < FAULTS_MAX)
			want[nwant++] = (struct fault){ *r, va, rw | !(*state & ABSENT), rip };
		*state = *state & ABSENT ? *state & READ_ONLY : 0;
	}
}

/* An access of @size bytes by the instruction at @rip; returns where the model has the bytes. */
static void *touch(const struct regs *r, uint64_t va, unsigned size, uint64_t rw, uint64_t rip)
{
	touch_page(r, va, rw, rip);
	if ((va & 4095) + size > 4096)
		touch_page(r, (va | 4095) + 1, rw, rip);
	return (void *)(va - VA + MODEL);
}

typedef uint64_t __attribute__((aligned(1), may_alias)) word;

static word *touch8(const struct regs *r, uint64_t va, uint64_t rw, uint64_t rip)
{
	return touch(r, va, 8, rw, rip);
}

/* --- The pieces.  NAME_at[] are the addresses of their accesses. --- */

#define PIECE(name, body, at) \
	asm(".text\n\t.balign 64\n" #name ":\n" body "\n\tret\n\t.balign 8\n" #name "_at:\n\t.quad " at "\n"); \
	extern const uint8_t name[]; \
	extern const uint64_t name##_at[]

PIECE(forward, "1:\tadd (%rsi), %rax\n\tadd $8, %rsi\n\tdec %rcx\n\tjnz 1b", "1b");
PIECE(backward, "2:\tsub $8, %rsi\n1:\txor (%rsi), %rax\n\trol $1, %rax\n\tdec %rcx\n\tjnz 2b", "1b");
PIECE(indexed, "1:\tmov (%rdi,%rcx,8), %rdx\n\tadd %rdx, %rax\n\tinc %rcx\n\tcmp %r8, %rcx\n\tjne 1b", "1b");
PIECE(index_down, "1:\tadd -8(%rdi,%rcx,8), %rax\n\tlea (%r11,%rax,2), %r11\n\tdec %rcx\n\tjnz 1b", "1b");
PIECE(crossing, "1:\tadd 4(%rsi), %rax\n\tadd $8, %rsi\n\tdec %rcx\n\tjnz 1b", "1b");
PIECE(writes, "1:\tmov %rax, (%rdi)\n\tadd %rcx, %rax\n\tadd $16, %rdi\n\tdec %rcx\n\tjnz 1b", "1b");
PIECE(write_crossing, "1:\tmov %rax, -3(%rdi)\n\tadd %rcx, %rax\n\tsub $8, %rdi\n\tdec %rcx\n\tjnz 1b", "1b");
PIECE(copies, "1:\tmov (%rsi), %rdx\n2:\tmov %rdx, (%rdi)\n\tadd $8, %rsi\n\tadd $8, %rdi\n\tdec %rcx\n\tjnz 1b", "1b, 2b");
PIECE(read_write, "1:\tmov (%rsi), %rdx\n\tadd %rdx, %rax\n2:\tmov %rax, (%rsi)\n\tadd $32, %rsi\n\tdec %rcx\n\tjnz 1b",
      "1b, 2b");
PIECE(modifies, "1:\tadd %rax, (%rsi)\n2:\tadcq $5, 8(%rsi)\n\tlea 3(%rax), %rax\n\tlea 24(%rsi), %rsi\n\tdec %rcx\n\tjnz 1b",
      "1b, 2b");
PIECE(three, "1:\tmov (%rsi), %rax\n2:\tadd (%rdx,%r10), %rax\n3:\tmov %rax, (%rdi)\n\tadd $8, %rsi\n\tadd $8, %rdx\n\t"
      "add $8, %rdi\n\tdec %rcx\n\tjnz 1b", "1b, 2b, 3b");
/* Not a loop of one block: the accesses near each other share a look-up and cross pages in between. */
PIECE(fields, "1:\tmov (%rsi), %rax\n\tadd %rax, %r8\n2:\tadd 8(%rsi), %r8\n\tlea 24(%rsi), %rsi\n3:\tmov %r8, -8(%rsi)\n\t"
      "jmp 5f\n5:\tcall 6f\n\tdec %rcx\n\tjnz 1b\n\tret\n6:\tinc %r9", "1b, 2b, 3b");
PIECE(pops, "\tmov %rsp, %rbx\n\tmov %rsi, %rsp\n1:\tpop %rdx\n\tadd %rdx, %rax\n\tdec %rcx\n\tjnz 1b\n\tmov %rsp, %rsi\n\t"
      "mov %rbx, %rsp", "1b");
PIECE(pushes, "\tmov %rsp, %rbx\n\tmov %rsi, %rsp\n1:\tpush %rax\n\tadd %rcx, %rax\n\tdec %rcx\n\tjnz 1b\n\tmov %rsp, %rsi\n\t"
      "mov %rbx, %rsp", "1b");

static void model_forward(struct regs *r, const uint64_t *at)
{
	for (; r->rcx; r->rcx--, r->rsi += 8)
		r->rax += *touch8(r, r->rsi, READ, at[0]);
}

static void model_backward(struct regs *r, const uint64_t *at)
{
	for (; r->rcx; r->rcx--) {
		r->rsi -= 8;
		r->rax ^= *touch8(r, r->rsi, READ, at[0]);
		r->rax = r->rax << 1 | r->rax >> 63;
	}
}

static void model_indexed(struct regs *r, const uint64_t *at)
{
	for (; r->rcx != r->r8; r->rcx++) {
		r->rdx = *touch8(r, r->rdi + r->rcx * 8, READ, at[0]);
		r->rax += r->rdx;
	}
}

static void model_index_down(struct regs *r, const uint64_t *at)
{
	for (; r->rcx; r->rcx--) {
		r->rax += *touch8(r, r->rdi + r->rcx * 8 - 8, READ, at[0]);
		r->r11 += 2 * r->rax;
	}
}

static void model_crossing(struct regs *r, const uint64_t *at)
{
	for (; r->rcx; r->rcx--, r->rsi += 8)
		r->rax += *touch8(r, r->rsi + 4, READ, at[0]);
}

static void model_writes(struct regs *r, const uint64_t *at)
{
	for (; r->rcx; r->rcx--, r->rdi += 16) {
		*touch8(r, r->rdi, WRITE, at[0]) = r->rax;
		r->rax += r->rcx;
	}
}

static void model_write_crossing(struct regs *r, const uint64_t *at)
{
	for (; r->rcx; r->rcx--, r->rdi -= 8) {
		*touch8(r, r->rdi - 3, WRITE, at[0]) = r->rax;
		r->rax += r->rcx;
	}
}

static void model_copies(struct regs *r, const uint64_t *at)
{
	for (; r->rcx; r->rcx--, r->rsi += 8, r->rdi += 8) {
		r->rdx = *touch8(r, r->rsi, READ, at[0]);
		*touch8(r, r->rdi, WRITE, at[1]) = r->rdx;
	}
}

static void model_read_write(struct regs *r, const uint64_t *at)
{
	for (; r->rcx; r->rcx--, r->rsi += 32) {
		r->rdx = *touch8(r, r->rsi, READ, at[0]);
		r->rax += r->rdx;
		*touch8(r, r->rsi, WRITE, at[1]) = r->rax;
	}
}

static void model_modifies(struct regs *r, const uint64_t *at)
{
	for (; r->rcx; r->rcx--, r->rsi += 24) {
		word *p = touch8(r, r->rsi, WRITE, at[0]);
		bool carry = __builtin_add_overflow(*p, r->rax, p);

		*touch8(r, r->rsi + 8, WRITE, at[1]) += 5 + carry;
		r->rax += 3;
	}
}

static void model_three(struct regs *r, const uint64_t *at)
{
	for (; r->rcx; r->rcx--, r->rsi += 8, r->rdx += 8, r->rdi += 8) {
		r->rax = *touch8(r, r->rsi, READ, at[0]);
		r->rax += *touch8(r, r->rdx + r->r10, READ, at[1]);
		*touch8(r, r->rdi, WRITE, at[2]) = r->rax;
	}
}

static void model_fields(struct regs *r, const uint64_t *at)
{
	for (; r->rcx; r->rcx--, r->r9++) {
		r->rax = *touch8(r, r->rsi, READ, at[0]);
		r->r8 += r->rax;
		r->r8 += *touch8(r, r->rsi + 8, READ, at[1]);
		r->rsi += 24;
		*touch8(r, r->rsi - 8, WRITE, at[2]) = r->r8;
	}
}

/* RBX holds the stack pointer meanwhile: what it is nobody can say, so the notes say 0. */
static void model_pops(struct regs *r, const uint64_t *at)
{
	for (; r->rcx; r->rcx--, r->rsi += 8) {
		struct regs now = *r;

		now.rsi = VA;
		now.rsp = r->rsi;
		r->rdx = *touch8(&now, r->rsi, READ, at[0]);
		r->rax += r->rdx;
	}
}

static void model_pushes(struct regs *r, const uint64_t *at)
{
	uint64_t start = r->rsi;

	for (; r->rcx; r->rcx--, r->rsi -= 8) {
		struct regs now = *r;

		now.rsi = start;
		now.rsp = r->rsi;
		*touch8(&now, r->rsi - 8, WRITE, at[0]) = r->rax;
		r->rax += r->rcx;
	}
}

/*
 * Straight code: 48 accesses of eight kinds, each to a page of its own, with every
 * register changing in between; @all names R8 to R15 too.
 */
#define STEPS 48
asm(".macro steps all\n"
    "k = 0\n\t.rept 48\n\t"
    "off = k * 4096 + k * 136 % 4000\n\t"
    "add $3, %rax\n\tlea 1(%rbx,%rax), %rbx\n\trol $1, %rdx\n\txor %rax, %rdx\n\t"
    ".if \\all\n\tadd %rax, %r14\n\tlea (%r15,%r14,2), %r15\n\tinc %r8\n\tadd %r8, %r9\n\tlea (%r10,%r9), %r10\n\t"
    "sub %r14, %r11\n\txor %r11, %r12\n\tadd %r12, %r13\n\t.endif\n"
    "77:\n\t.pushsection .rodata\n\t.quad 77b\n\t.popsection\n\t"
    ".if k % 8 == 0\n\tmov off(%rdi), %rcx\n\tadd %rcx, %rax\n\t.endif\n\t"
    ".if k % 8 == 1\n\tadd %rax, off(%rdi)\n\tadc $0, %rbx\n\t.endif\n\t"
    ".if k % 8 == 2\n\tmov %rbx, off(%rdi)\n\t.endif\n\t"
    ".if k % 8 == 3\n\tcmp off(%rdi), %rax\n\tadc $0, %rbx\n\t.endif\n\t"
    ".if k % 8 == 4\n\txchg %rdx, off(%rdi)\n\t.endif\n\t"
    ".if k % 8 == 5\n\tmovzwl off+2(%rdi), %ecx\n\txor %rcx, %rdx\n\t.endif\n\t"
    ".if k % 8 == 6\n\tadd off(%rdi), %rbx\n\tsbb $3, %rax\n\t.endif\n\t"
    ".if k % 8 == 7\n\tlock xadd %rdx, off(%rdi)\n\tsbb $0, %rbx\n\t.endif\n\t"
    "k = k + 1\n\t.endr\n\tret\n.endm\n"
    "\t.pushsection .rodata\n\t.balign 8\nstraight_at:\n\t.popsection\n\t.text\nstraight:\n\tsteps 0\n"
    "\t.pushsection .rodata\n\t.balign 8\nstraight_all_at:\n\t.popsection\n\t.text\nstraight_all:\n\tsteps 1\n");
extern const uint8_t straight[], straight_all[];
extern const uint64_t straight_at[], straight_all_at[];

static void model_step(struct regs *r, unsigned k, uint64_t at)
{
	uint64_t va = r->rdi + k * 4096 + k * 136 % 4000, old;
	bool carry;
	word *p;

	switch (k % 8) {
	case 0:
		r->rcx = *touch8(r, va, READ, at);
		r->rax += r->rcx;
		break;
	case 1:
		p = touch8(r, va, WRITE, at);
		carry = __builtin_add_overflow(*p, r->rax, p);
		r->rbx += carry;
		break;
	case 2:
		*touch8(r, va, WRITE, at) = r->rbx;
		break;
	case 3:
		r->rbx += r->rax < *touch8(r, va, READ, at);
		break;
	case 4:
		p = touch8(r, va, WRITE, at);
		old = *p;
		*p = r->rdx;
		r->rdx = old;
		break;
	case 5:
		r->rcx = *(uint16_t *)touch(r, va + 2, 2, READ, at);
		r->rdx ^= r->rcx;
		break;
	case 6:
		carry = __builtin_add_overflow(r->rbx, *touch8(r, va, READ, at), &r->rbx);
		r->rax -= 3 + carry;
		break;
	default:
		p = touch8(r, va, WRITE, at);
		old = *p;
		carry = __builtin_add_overflow(old, r->rdx, p);
		r->rdx = old;
		r->rbx -= carry;
		break;
	}
}

static void model_straight_some(struct regs *r, const uint64_t *at, bool all)
{
	for (unsigned k = 0; k < STEPS; k++) {
		r->rax += 3;
		r->rbx += r->rax + 1;
		r->rdx = (r->rdx << 1 | r->rdx >> 63) ^ r->rax;
		if (all) {
			r->r14 += r->rax;
			r->r15 += 2 * r->r14;
			r->r9 += ++r->r8;
			r->r10 += r->r9;
			r->r11 -= r->r14;
			r->r12 ^= r->r11;
			r->r13 += r->r12;
		}
		model_step(r, k, at[k]);
	}
}

static void model_straight(struct regs *r, const uint64_t *at)
{
	model_straight_some(r, at, false);
}

static void model_straight_all(struct regs *r, const uint64_t *at)
{
	model_straight_some(r, at, true);
}

/* --- One against the other --- */

static uint32_t seed = 1;

static uint32_t any(void)
{
	seed = seed * 1664525 + 1013904223;
	return seed >> 8;
}

static void fill(uint64_t where, unsigned n)
{
	for (unsigned i = 0; i < PAGES * 512; i++)
		write64(where + i * 8, i * 0x9e3779b97f4a7c15 + n);
}

static bool same_fault(const struct fault *a, const struct fault *b, bool stack)
{
	const uint64_t *x = &a->regs.rax, *y = &b->regs.rax;

	for (unsigned i = 0; i < NREGS; i++)
		if (x[i] != y[i] && !(stack && i == 3))	/* RBX, see model_pops() */
			return false;
	return a->cr2 == b->cr2 && a->error == b->error && a->rip == b->rip && (!stack || a->regs.rsp == b->regs.rsp);
}

static bool same_end(const struct regs *a, const struct regs *b, bool stack)
{
	const uint64_t *x = &a->rax, *y = &b->rax;

	for (unsigned i = 0; i < NREGS; i++)
		if (x[i] != y[i] && !(stack && i == 3))
			return false;
	for (unsigned i = 0; i < PAGES * 512; i++)
		if (read64(PA + i * 8) != read64(MODEL + i * 8))
			return false;
	return true;
}

struct piece {
	const uint8_t *code;
	const uint64_t *at;
	void (*model)(struct regs *r, const uint64_t *at);
	uint64_t rsi, rdi, rcx, rdx;	/* to begin with */
	bool stack;
};

static bool run_once(const struct piece *p, uint8_t (*state_of)(unsigned i, unsigned n), unsigned n)
{
	struct regs r = { .rax = n + 1, .rbx = 2, .rcx = p->rcx, .rdx = p->rdx, .rsi = p->rsi, .rdi = p->rdi, .rbp = 5,
			  .r8 = p->rcx + 700, .r9 = 9, .r11 = 11, .r12 = 12, .r13 = 13, .r14 = 14, .r15 = 15 };
	struct regs m = r;
	bool ok;

	fill(MODEL, n);
	fill(PA, n);
	for (unsigned i = 0; i < PAGES; i++) {
		model_state[i] = state_of(i, n);
		set_page(i, model_state[i]);
	}
	ngot = nwant = 0;
	p->model(&m, p->at);
	run_code(&r, p->code);
	ok = ngot == nwant;
	for (unsigned i = 0; i < ngot && ok; i++)
		ok = same_fault(&got[i], &want[i], p->stack);
	ok = ok && same_end(&r, &m, p->stack);
	return ok;
}

static uint8_t all_absent(unsigned i, unsigned n)
{
	(void)i, (void)n;
	return ABSENT;
}

static uint8_t absent_then_read_only(unsigned i, unsigned n)
{
	return i % 3 == n % 3 ? READ_ONLY : i % 3 == (n + 1) % 3 ? ABSENT | READ_ONLY : 0;
}

static uint8_t one_absent(unsigned i, unsigned n)
{
	return i == n ? ABSENT : 0;
}

static uint8_t random(unsigned i, unsigned n)
{
	(void)i, (void)n;
	return any() & (ABSENT | READ_ONLY);
}

static void test(const char *name, struct piece p, unsigned pages)
{
	bool ok = run_once(&p, all_absent, 0);

	for (unsigned n = 0; n < pages; n++)
		ok = run_once(&p, one_absent, n) && ok;
	for (unsigned n = 0; n < 3; n++)
		ok = run_once(&p, absent_then_read_only, n) && ok;
	for (unsigned n = 0; n < 12; n++)
		ok = run_once(&p, random, n) && ok;
	check(name, ok);
}

#define LOOP_PAGES 8
#define WORDS (LOOP_PAGES * 512ull)
#define P(name) name, name##_at, model_##name

int guest_main(void)
{
	use_own_stack();
	irq_handler[14] = on_fault;
	write_cr0(read_cr0() | 1 << 16);	/* WP: read-only means the kernel, too */
	test("straight code", (struct piece){ P(straight), .rdi = VA }, STEPS);
	test("straight code that uses every register", (struct piece){ P(straight_all), .rdi = VA }, STEPS);
	test("a loop that reads forwards", (struct piece){ P(forward), .rsi = VA, .rcx = WORDS }, LOOP_PAGES);
	test("backwards", (struct piece){ P(backward), .rsi = VA + 8 * WORDS, .rcx = WORDS }, LOOP_PAGES);
	test("by index", (struct piece){ P(indexed), .rdi = VA, .rcx = 3 }, 2);
	test("by index, downwards", (struct piece){ P(index_down), .rdi = VA, .rcx = WORDS }, LOOP_PAGES);
	test("across the ends of pages", (struct piece){ P(crossing), .rsi = VA, .rcx = WORDS }, LOOP_PAGES);
	test("a loop that writes", (struct piece){ P(writes), .rdi = VA, .rcx = WORDS / 2 }, LOOP_PAGES);
	test("across the ends of pages, downwards",
	     (struct piece){ P(write_crossing), .rdi = VA + 8 * WORDS, .rcx = WORDS - 1 }, LOOP_PAGES);
	test("a loop that copies", (struct piece){ P(copies), .rsi = VA, .rdi = VA + 8 * WORDS + 0x128, .rcx = WORDS },
	     2 * LOOP_PAGES + 1);
	test("a loop that writes where it read", (struct piece){ P(read_write), .rsi = VA, .rcx = WORDS / 4 }, LOOP_PAGES);
	test("a loop that modifies", (struct piece){ P(modifies), .rsi = VA + 8, .rcx = WORDS / 3 }, LOOP_PAGES);
	test("a loop with three streams",
	     (struct piece){ P(three), .rsi = VA + 0x80, .rdx = VA + 8 * WORDS + 0x40, .rdi = VA + 16 * WORDS + 0x200,
			     .rcx = WORDS }, 3 * LOOP_PAGES + 2);
	test("fields that lie in two pages", (struct piece){ P(fields), .rsi = VA + 4, .rcx = WORDS / 3 }, LOOP_PAGES);
	test("POP", (struct piece){ P(pops), .rsi = VA, .rcx = WORDS, .stack = true }, LOOP_PAGES);
	test("PUSH", (struct piece){ P(pushes), .rsi = VA + 8 * WORDS, .rcx = WORDS, .stack = true }, LOOP_PAGES);
	return check_status();
}
