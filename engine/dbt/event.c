/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of control and privilege that code did not write as a jump:
 * exceptions, interrupts, IRET, SYSCALL and friends, far transfers, segment
 * loads.  Source: SDM vol. 3, chapters 5 and 6; vol. 2 for the instructions.
 *
 * Long mode only: gates are 16 bytes and push SS:RSP always.  A 32-bit kernel
 * does not run on this engine, 32-bit user code does.
 */
#include "engine/dbt/run.h"

#include "vmm/irqchip.h"

#define ATTR_TYPE 0xfu
#define ATTR_S 0x10u
#define ATTR_DPL(a) ((a) >> 5 & 3)
#define ATTR_P 0x80u
#define TYPE_CODE 8u
#define TYPE_CONFORMING 4u
#define TYPE_WRITABLE 2u	/* readable, for code */
#define TYPE_ACCESSED 1u

static const uint16_t flat_code = 0x0b | ATTR_S | ATTR_P | 1u << 11;
static const uint16_t flat_data = 0x03 | ATTR_S | ATTR_P | ATTR_DB | 1u << 11;

uint32_t cpu_rflags(const struct cpu *cpu)
{
	return ((uint32_t)cpu->flags & FLAGS_ARITH) | 2 | (cpu->intr_enabled ? FLAG_IF : 0) |
	       (cpu->direction ? FLAG_DF : 0) | cpu->sysflags;
}

void cpu_set_rflags(struct cpu *cpu, uint64_t value, uint64_t mask)
{
	const uint64_t sys = FLAG_TF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_AC | FLAG_ID;

	cpu->flags = (cpu->flags & ~mask) | (value & mask & FLAGS_ARITH) | 2;
	cpu->flags &= FLAGS_ARITH | 2;
	if (mask & FLAG_IF) {
		cpu->intr_enabled = !!(value & FLAG_IF);
		if (cpu->intr_enabled && cpu->deferred)
			cpu->exit_self = 1;
	}
	if (mask & FLAG_DF)
		cpu->direction = !!(value & FLAG_DF);
	cpu->sysflags = (uint32_t)((cpu->sysflags & ~(mask & sys)) | (value & mask & sys));
}

/* ------------------------------------------------------------------ raising */

static bool contributory(unsigned vector)
{
	return vector == VEC_DE || (vector >= VEC_TS && vector <= VEC_GP);
}

/* SDM vol. 3, table 6-5: what a second exception while delivering the first becomes. */
static void raise_event(struct cpu *cpu, struct event ev)
{
	if (!cpu->delivering)
		cpu->nchain = 0;
	if (cpu->nchain < 3) {
		cpu->chain[cpu->nchain].rip = cpu->rip;
		cpu->chain[cpu->nchain].rsp = cpu->gpr[RSP];
		cpu->chain[cpu->nchain].cr2 = cpu->cr2;
		cpu->chain[cpu->nchain].error = ev.error;
		cpu->chain[cpu->nchain].cpl = cpu->cpl;
		cpu->chain[cpu->nchain++].vector = ev.vector;
	}
	if (cpu->delivering) {
		unsigned first = cpu->delivering_vector;

		if (first == VEC_DF) {
			cpu->leave = LEAVE_SHUTDOWN;
			cpu->has_pending = false;
			return;
		}
		if ((contributory(first) && contributory(ev.vector)) ||
		    (first == VEC_PF && (ev.vector == VEC_PF || contributory(ev.vector))))
			ev = (struct event){ .vector = VEC_DF, .kind = EVENT_FAULT, .has_error = true };
	}
	cpu->pending = ev;
	cpu->has_pending = true;
	cpu->stats.exceptions++;
}

void raise_vector(struct cpu *cpu, unsigned vector)
{
	raise_event(cpu, (struct event){ .vector = (uint8_t)vector, .kind = EVENT_FAULT });
}

void raise_error(struct cpu *cpu, unsigned vector, uint32_t error)
{
	raise_event(cpu, (struct event){ .vector = (uint8_t)vector, .kind = EVENT_FAULT, .has_error = true,
					 .error = error });
}

void raise_page_fault(struct cpu *cpu, uint64_t va, uint32_t error)
{
	cpu->cr2 = va;
	raise_error(cpu, VEC_PF, error);
}

void raise_access(struct cpu *cpu, int vector, uint64_t va, uint32_t error)
{
	if (vector == VEC_PF)
		raise_page_fault(cpu, va, error);
	else
		raise_error(cpu, (unsigned)vector, 0);
}

/* ---------------------------------------------------------------- descriptors */

struct descriptor {
	uint64_t base;
	uint32_t limit;
	uint16_t attr;
};

static struct descriptor parse_descriptor(uint64_t raw)
{
	struct descriptor d = {
		.base = (raw >> 16 & 0xffffff) | (raw >> 56 & 0xff) << 24,
		.limit = (uint32_t)((raw & 0xffff) | (raw >> 32 & 0xf0000)),
		.attr = (uint16_t)((raw >> 40 & 0xff) | (raw >> 44 & 0xf00)),
	};

	if (d.attr & 1u << 11)
		d.limit = d.limit << 12 | 0xfff;
	return d;
}

/* Reads the 8-byte descriptor of @sel.  0, or a vector with @ret_error. */
static int read_descriptor(struct cpu *cpu, uint16_t sel, uint64_t *ret_raw, uint32_t *ret_error)
{
	uint64_t base = cpu->gdtr.base;
	uint32_t limit = cpu->gdtr.limit, error = 0;
	int vector;

	if (sel & 4) {
		base = cpu->ldtr.base;
		limit = cpu->ldtr.attr & ATTR_UNUSABLE ? 0 : cpu->ldtr.limit;
	}
	*ret_error = sel & 0xfffc;
	if ((sel & ~7u) + 7 > limit)
		return VEC_GP;
	vector = mem_load(cpu, base + (sel & ~7u), ret_raw, 8, false, &error);
	if (vector == VEC_PF) {
		cpu->cr2 = cpu->fault_va;
		*ret_error = error;
	}
	return vector;
}

static void set_segment(struct cpu *cpu, unsigned seg, uint16_t sel, struct descriptor d)
{
	cpu->seg[seg] = (struct seg_reg){ .base = d.base, .limit = d.limit, .sel = sel, .attr = d.attr };
	if (seg == SEG_FS)
		cpu->fs_base = d.base;
	else if (seg == SEG_GS)
		cpu->gs_base = d.base;
}

static void set_null(struct cpu *cpu, unsigned seg, uint16_t sel)
{
	cpu->seg[seg].sel = sel;
	cpu->seg[seg].attr = ATTR_UNUSABLE;
	if (seg == SEG_FS)
		cpu->fs_base = 0;
	else if (seg == SEG_GS)
		cpu->gs_base = 0;
}

bool load_segment(struct cpu *cpu, unsigned seg, uint16_t sel)
{
	struct descriptor d;
	uint32_t error;
	uint64_t raw;
	int vector;

	if (!(sel & 0xfffc)) {
		if (seg == SEG_SS && ((sel & 3) != cpu->cpl || cpu->cpl == 3 || cpu->mode & BLOCK_32)) {
			raise_error(cpu, VEC_GP, 0);
			return false;
		}
		set_null(cpu, seg, sel);
		return true;
	}
	vector = read_descriptor(cpu, sel, &raw, &error);
	if (vector) {
		raise_error(cpu, (unsigned)vector, error);
		return false;
	}
	d = parse_descriptor(raw);
	if (seg == SEG_SS) {
		if ((sel & 3) != cpu->cpl || !(d.attr & ATTR_S) || (d.attr & TYPE_CODE) ||
		    !(d.attr & TYPE_WRITABLE) || ATTR_DPL(d.attr) != cpu->cpl) {
			raise_error(cpu, VEC_GP, sel & 0xfffc);
			return false;
		}
	} else if (!(d.attr & ATTR_S) || (d.attr & (TYPE_CODE | TYPE_WRITABLE)) == TYPE_CODE ||
		   ((d.attr & (TYPE_CODE | TYPE_CONFORMING)) != (TYPE_CODE | TYPE_CONFORMING) &&
		    ATTR_DPL(d.attr) < (cpu->cpl > (sel & 3) ? cpu->cpl : sel & 3u))) {
		raise_error(cpu, VEC_GP, sel & 0xfffc);
		return false;
	}
	if (!(d.attr & ATTR_P)) {
		raise_error(cpu, seg == SEG_SS ? VEC_SS : VEC_NP, sel & 0xfffc);
		return false;
	}
	set_segment(cpu, seg, sel, d);
	return true;
}

/* Reads and checks a code segment for a transfer to privilege @cpl. */
static bool code_segment(struct cpu *cpu, uint16_t sel, unsigned cpl, bool is_return, struct descriptor *ret)
{
	uint32_t error;
	uint64_t raw;
	int vector;

	if (!(sel & 0xfffc)) {
		raise_error(cpu, VEC_GP, 0);
		return false;
	}
	vector = read_descriptor(cpu, sel, &raw, &error);
	if (vector) {
		raise_error(cpu, (unsigned)vector, error);
		return false;
	}
	*ret = parse_descriptor(raw);
	if (!(ret->attr & ATTR_S) || !(ret->attr & TYPE_CODE) ||
	    (ret->attr & ATTR_L && ret->attr & ATTR_DB) ||
	    (ret->attr & TYPE_CONFORMING ? ATTR_DPL(ret->attr) > cpl : ATTR_DPL(ret->attr) != cpl) ||
	    (is_return && (sel & 3) < cpu->cpl)) {
		raise_error(cpu, VEC_GP, sel & 0xfffc);
		return false;
	}
	if (!(ret->attr & ATTR_P)) {
		raise_error(cpu, VEC_NP, sel & 0xfffc);
		return false;
	}
	return true;
}

static void set_cpl(struct cpu *cpu, unsigned cpl)
{
	cpu->cpl = (uint8_t)cpl;
	cpu_update_mode(cpu);
}

/* ----------------------------------------------------------------- delivery */

struct gate {
	uint16_t off0, sel, ist_type, off1;
	uint32_t off2, zero;
};
_Static_assert(sizeof(struct gate) == 16, "long-mode gate, SDM vol. 3, 6.14.1");

static int load_gate(struct cpu *cpu, const struct event *ev, struct gate *ret, uint32_t *ret_error)
{
	uint32_t error = 0, at = ev->vector * 16u;
	uint32_t ext = ev->kind == EVENT_SOFT ? 0 : 1;
	unsigned type;
	int vector;

	*ret_error = at / 2 | 2 | ext;	/* index << 3, IDT bit */
	if (at + 15 > cpu->idtr.limit)
		return VEC_GP;
	vector = mem_load(cpu, cpu->idtr.base + at, ret, sizeof(*ret), false, &error);
	if (vector) {
		cpu->cr2 = vector == VEC_PF ? cpu->fault_va : cpu->cr2;
		*ret_error = error;
		return vector;
	}
	type = ret->ist_type >> 8 & 0x1f;
	if (type != 0xe && type != 0xf)
		return VEC_GP;
	if (ev->kind == EVENT_SOFT && (ret->ist_type >> 13 & 3) < cpu->cpl)
		return VEC_GP;
	return ret->ist_type & 0x8000 ? 0 : VEC_NP;
}

/* RSP for the handler: an IST entry, the TSS entry of @cpl, or the present one. */
static int handler_stack(struct cpu *cpu, unsigned ist, unsigned cpl, uint64_t *ret_rsp, uint32_t *ret_error)
{
	uint64_t at = ist ? 0x24 + 8u * (ist - 1) : 4 + 8u * cpl;
	int vector;

	if (!ist && cpl == cpu->cpl) {
		*ret_rsp = cpu->gpr[RSP];
		return 0;
	}
	*ret_error = cpu->tr.sel & 0xfffc;
	if (at + 7 > cpu->tr.limit)
		return VEC_TS;
	vector = mem_load(cpu, cpu->tr.base + at, ret_rsp, 8, false, ret_error);
	if (vector)
		cpu->cr2 = vector == VEC_PF ? cpu->fault_va : cpu->cr2;
	else if (!canonical(*ret_rsp))
		vector = VEC_SS;
	return vector;
}

/* One try; 0, or the vector (with @ret_error) of the exception met on the way. */
static int try_deliver(struct cpu *cpu, const struct event *ev, uint32_t *ret_error)
{
	uint64_t frame[6], rip, rsp;
	struct descriptor cs;
	struct gate gate;
	unsigned cpl, n = ev->has_error ? 6 : 5, ist;
	uint64_t raw;
	int vector = load_gate(cpu, ev, &gate, ret_error);

	if (vector)
		return vector;
	rip = gate.off0 | (uint64_t)gate.off1 << 16 | (uint64_t)gate.off2 << 32;
	if (!(gate.sel & 0xfffc)) {
		*ret_error = 0;
		return VEC_GP;
	}
	vector = read_descriptor(cpu, gate.sel, &raw, ret_error);
	if (vector)
		return vector;
	cs = parse_descriptor(raw);
	if (!(cs.attr & ATTR_S) || !(cs.attr & TYPE_CODE) || ATTR_DPL(cs.attr) > cpu->cpl || !(cs.attr & ATTR_L))
		return VEC_GP;
	if (!(cs.attr & ATTR_P))
		return VEC_NP;
	cpl = cs.attr & TYPE_CONFORMING ? cpu->cpl : ATTR_DPL(cs.attr);
	ist = gate.ist_type & 7;
	vector = handler_stack(cpu, ist, cpl, &rsp, ret_error);
	if (vector)
		return vector;

	rsp &= ~15ull;
	frame[n - 1] = cpu->seg[SEG_SS].sel;
	frame[n - 2] = cpu->gpr[RSP];
	frame[n - 3] = cpu_rflags(cpu) | (ev->kind == EVENT_FAULT && ev->vector != VEC_DB ? FLAG_RF : 0);
	frame[n - 4] = cpu->seg[SEG_CS].sel;
	frame[n - 5] = ev->kind == EVENT_SOFT ? ev->next_rip : cpu->rip;
	if (ev->has_error)
		frame[0] = ev->error;
	rsp -= 8u * n;
	vector = mem_store(cpu, rsp, frame, 8 * n, false, ret_error);
	if (vector) {
		cpu->cr2 = vector == VEC_PF ? cpu->fault_va : cpu->cr2;
		return vector == VEC_PF ? VEC_PF : VEC_SS;
	}
	cpu->gpr[RSP] = rsp;
	if (cpl != cpu->cpl)
		set_null(cpu, SEG_SS, (uint16_t)cpl);
	set_segment(cpu, SEG_CS, (uint16_t)((gate.sel & ~3u) | cpl), cs);
	cpu->rip = rip;
	cpu_set_rflags(cpu, 0, FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM |
		       ((gate.ist_type >> 8 & 1) ? 0 : FLAG_IF));
	set_cpl(cpu, cpl);
	return 0;
}

void deliver_pending(struct cpu *cpu)
{
	while (cpu->has_pending && !cpu->leave) {
		struct event ev = cpu->pending;
		uint32_t error = 0;
		int vector;

		cpu->has_pending = false;
		cpu->delivering = true;
		/* INT n and interrupts are benign whatever their number (SDM table 6-4). */
		cpu->delivering_vector = ev.kind == EVENT_FAULT ? ev.vector : VEC_BP;
		vector = try_deliver(cpu, &ev, &error);
		if (vector)	/* while delivering: may turn into a double fault */
			raise_event(cpu, (struct event){ .vector = (uint8_t)vector, .kind = EVENT_FAULT,
							 .has_error = true, .error = error });
		cpu->delivering = false;
	}
}

void deliver_interrupt(struct cpu *cpu, unsigned vector)
{
	cpu->pending = (struct event){ .vector = (uint8_t)vector, .kind = EVENT_EXTERNAL };
	cpu->has_pending = true;
	deliver_pending(cpu);
}

void software_interrupt(struct cpu *cpu, unsigned vector, uint64_t next_rip)
{
	cpu->pending = (struct event){ .vector = (uint8_t)vector, .kind = EVENT_SOFT, .next_rip = next_rip };
	cpu->has_pending = true;
}

/* --------------------------------------------------------------------- IRET */

static uint64_t pop_flag_mask(const struct cpu *cpu, unsigned opsize)
{
	uint64_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;

	if (opsize > 2)
		mask |= FLAG_RF | FLAG_AC | FLAG_ID;
	if (cpu->cpl <= (cpu->sysflags >> 12 & 3))
		mask |= FLAG_IF;
	if (cpu->cpl == 0)
		mask |= FLAG_IOPL;
	return mask;
}

/* Data segments that the outer privilege level may not use become null. */
static void drop_inner_segments(struct cpu *cpu)
{
	static const uint8_t data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

	for (unsigned i = 0; i < 4; i++) {
		struct seg_reg *s = &cpu->seg[data[i]];
		bool conforming = (s->attr & (TYPE_CODE | TYPE_CONFORMING)) == (TYPE_CODE | TYPE_CONFORMING);

		if (!(s->attr & ATTR_UNUSABLE) && s->attr & ATTR_S && !conforming && ATTR_DPL(s->attr) < cpu->cpl) {
			s->sel = 0;
			s->attr = ATTR_UNUSABLE;
		}
	}
}

void do_iret(struct cpu *cpu, const struct insn *in)
{
	uint64_t frame[5] = { 0 }, mask = pop_flag_mask(cpu, in->opsize);
	unsigned n = cpu->mode & BLOCK_32 ? 3 : 5, cpl;
	struct descriptor cs, ss = { 0 };
	uint32_t error = 0;
	uint64_t raw;
	int vector = 0;

	if (cpu->sysflags & FLAG_NT) {
		raise_error(cpu, VEC_GP, 0);
		return;
	}
	if (in->opsize == 8) {
		vector = mem_load(cpu, cpu->gpr[RSP], frame, 40, cpu->cpl == 3, &error);
	} else {
		uint32_t narrow[5] = { 0 };

		if (in->opsize == 2) {
			raise_error(cpu, VEC_GP, 0);
			return;
		}
		vector = mem_load(cpu, cpu->gpr[RSP], narrow, 4 * n, cpu->cpl == 3, &error);
		for (unsigned i = 0; i < n; i++)
			frame[i] = narrow[i];
		if (n == 3 && !vector && (frame[1] & 3) != cpu->cpl) {
			vector = mem_load(cpu, cpu->gpr[RSP], narrow, 20, cpu->cpl == 3, &error);
			frame[3] = narrow[3];
			frame[4] = narrow[4];
			n = 5;
		}
	}
	if (vector) {
		raise_access(cpu, vector, cpu->fault_va, error);
		return;
	}
	cpl = frame[1] & 3;
	if (!code_segment(cpu, (uint16_t)frame[1], cpl, true, &cs))
		return;
	if (cs.attr & ATTR_L ? !canonical(frame[0]) : frame[0] > cs.limit) {
		raise_error(cpu, VEC_GP, 0);
		return;
	}
	if (n == 5) {
		uint16_t sel = (uint16_t)frame[4];

		if (!(sel & 0xfffc)) {
			if (!(cs.attr & ATTR_L) || cpl == 3 || (sel & 3) != cpl) {
				raise_error(cpu, VEC_GP, 0);
				return;
			}
		} else {
			vector = read_descriptor(cpu, sel, &raw, &error);
			if (vector) {
				raise_error(cpu, (unsigned)vector, error);
				return;
			}
			ss = parse_descriptor(raw);
			if ((sel & 3) != cpl || !(ss.attr & ATTR_S) || ss.attr & TYPE_CODE ||
			    !(ss.attr & TYPE_WRITABLE) || ATTR_DPL(ss.attr) != cpl) {
				raise_error(cpu, VEC_GP, sel & 0xfffc);
				return;
			}
			if (!(ss.attr & ATTR_P)) {
				raise_error(cpu, VEC_SS, sel & 0xfffc);
				return;
			}
		}
	}
	cpu->rip = cs.attr & ATTR_L ? frame[0] : (uint32_t)frame[0];
	set_segment(cpu, SEG_CS, (uint16_t)frame[1], cs);
	if (n == 5) {
		if (frame[4] & 0xfffc)
			set_segment(cpu, SEG_SS, (uint16_t)frame[4], ss);
		else
			set_null(cpu, SEG_SS, (uint16_t)frame[4]);
		cpu->gpr[RSP] = frame[3];
	} else {
		cpu->gpr[RSP] = (uint32_t)(cpu->gpr[RSP] + 12);
	}
	cpu_set_rflags(cpu, frame[2], mask);
	cpu->nmi_masked = false;
	cpu->intr_shadow = true;
	if (cpl != cpu->cpl) {
		cpu->cpl = (uint8_t)cpl;
		drop_inner_segments(cpu);
	}
	set_cpl(cpu, cpl);
}

/* ------------------------------------------------------- fast system calls */

static void flat_segment(struct cpu *cpu, unsigned seg, uint16_t sel, uint16_t attr, unsigned dpl)
{
	cpu->seg[seg] = (struct seg_reg){ .sel = sel, .limit = 0xffffffff, .attr = (uint16_t)(attr | dpl << 5) };
}

/*
 * SYSCALL and SYSRET trap by the TF that they leave, not by the one before: a
 * debugger that steps over SYSCALL gets its trap in user code, behind SYSRET.
 */
static void step_by_new_flags(struct cpu *cpu)
{
	cpu->stepping = (uint8_t)((cpu->stepping & ~STEP_TF) | (cpu->sysflags & FLAG_TF ? STEP_TF : 0));
}

/* Computes for entry.c what a system call changes; 64-bit code only. */
static void prepare_fast(struct cpu *cpu)
{
	const uint32_t mask = FLAGS_ARITH | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_AC | FLAG_ID;
	uint16_t in = (uint16_t)(cpu->star >> 32 & 0xfffc), out = (uint16_t)(cpu->star >> 48);

	cpu->syscall_seg[0] = (struct seg_reg){ .sel = in, .limit = 0xffffffff, .attr = flat_code | ATTR_L };
	cpu->syscall_seg[1] = (struct seg_reg){ .sel = (uint16_t)(in + 8), .limit = 0xffffffff, .attr = flat_data };
	cpu->syscall_seg[2] = (struct seg_reg){ .sel = (uint16_t)((out + 16) | 3), .limit = 0xffffffff,
						.attr = flat_code | ATTR_L | 3 << 5 };
	cpu->syscall_seg[3] = (struct seg_reg){ .sel = (uint16_t)((out + 8) | 3), .limit = 0xffffffff,
						.attr = flat_data | 3 << 5 };
	cpu->syscall_ready = cpu->efer & EFER_SCE && (cpu->sfmask & mask) == mask && cpu->kjc_mode == 0;
}

void do_syscall(struct cpu *cpu, uint64_t next_rip)
{
	bool from64 = !(cpu->mode & BLOCK_32);

	if (!(cpu->efer & EFER_SCE)) {
		raise_vector(cpu, VEC_UD);
		return;
	}
	cpu->gpr[RCX] = next_rip;
	cpu->gpr[R11] = cpu_rflags(cpu) & ~FLAG_RF;
	cpu->rip = from64 ? cpu->lstar : cpu->cstar;
	cpu_set_rflags(cpu, 0, cpu->sfmask | FLAG_RF);
	flat_segment(cpu, SEG_CS, (uint16_t)(cpu->star >> 32 & 0xfffc), (uint16_t)(flat_code | ATTR_L), 0);
	flat_segment(cpu, SEG_SS, (uint16_t)((cpu->star >> 32 & 0xfffc) + 8), flat_data, 0);
	set_cpl(cpu, 0);
	step_by_new_flags(cpu);
	prepare_fast(cpu);
}

void do_sysret(struct cpu *cpu, const struct insn *in)
{
	uint16_t base = (uint16_t)(cpu->star >> 48);

	if (!(cpu->efer & EFER_SCE)) {
		raise_vector(cpu, VEC_UD);
		return;
	}
	if (in->opsize == 8) {
		if (!canonical(cpu->gpr[RCX])) {
			raise_error(cpu, VEC_GP, 0);
			return;
		}
		cpu->rip = cpu->gpr[RCX];
		flat_segment(cpu, SEG_CS, (uint16_t)((base + 16) | 3), (uint16_t)(flat_code | ATTR_L), 3);
	} else {
		cpu->rip = (uint32_t)cpu->gpr[RCX];
		flat_segment(cpu, SEG_CS, (uint16_t)(base | 3), (uint16_t)(flat_code | ATTR_DB), 3);
	}
	flat_segment(cpu, SEG_SS, (uint16_t)((base + 8) | 3), flat_data, 3);
	cpu_set_rflags(cpu, cpu->gpr[R11], FLAGS_ARITH | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT |
		       FLAG_AC | FLAG_ID | FLAG_RF);
	cpu->sysflags &= ~FLAG_RF;
	set_cpl(cpu, 3);
	step_by_new_flags(cpu);
}

void do_sysenter(struct cpu *cpu)
{
	if (!(cpu->sysenter_cs & 0xfffc)) {
		raise_error(cpu, VEC_GP, 0);
		return;
	}
	cpu_set_rflags(cpu, 0, FLAG_IF | FLAG_VM);
	flat_segment(cpu, SEG_CS, (uint16_t)(cpu->sysenter_cs & 0xfffc), (uint16_t)(flat_code | ATTR_L), 0);
	flat_segment(cpu, SEG_SS, (uint16_t)((cpu->sysenter_cs & 0xfffc) + 8), flat_data, 0);
	cpu->gpr[RSP] = cpu->sysenter_esp;
	cpu->rip = cpu->sysenter_eip;
	set_cpl(cpu, 0);
}

void do_sysexit(struct cpu *cpu, const struct insn *in)
{
	bool to64 = in->opsize == 8;
	uint16_t base = (uint16_t)(cpu->sysenter_cs & 0xfffc);

	if (!base || (to64 && (!canonical(cpu->gpr[RDX]) || !canonical(cpu->gpr[RCX])))) {
		raise_error(cpu, VEC_GP, 0);
		return;
	}
	flat_segment(cpu, SEG_CS, (uint16_t)((base + (to64 ? 32 : 16)) | 3),
		     (uint16_t)(flat_code | (to64 ? ATTR_L : ATTR_DB)), 3);
	flat_segment(cpu, SEG_SS, (uint16_t)((base + (to64 ? 40 : 24)) | 3), flat_data, 3);
	cpu->rip = to64 ? cpu->gpr[RDX] : (uint32_t)cpu->gpr[RDX];
	cpu->gpr[RSP] = to64 ? cpu->gpr[RCX] : (uint32_t)cpu->gpr[RCX];
	set_cpl(cpu, 3);
}

/* ------------------------------------------------------------- far transfers */

static bool load_far_pointer(struct cpu *cpu, const struct insn *in, uint64_t *ret_off, uint16_t *ret_sel)
{
	uint8_t raw[10] = { 0 };
	uint32_t error = 0;
	int vector;

	if (!in->mem) {
		*ret_off = (uint64_t)in->imm;
		*ret_sel = (uint16_t)in->imm2;
		return true;
	}
	vector = mem_load(cpu, operand_address(cpu, in), raw, in->opsize + 2u, cpu->cpl == 3, &error);
	if (vector) {
		raise_access(cpu, vector, cpu->fault_va, error);
		return false;
	}
	*ret_off = 0;
	copy_bytes(ret_off, raw, in->opsize);
	copy_bytes(ret_sel, raw + in->opsize, 2);
	return true;
}

static void far_return(struct cpu *cpu, const struct insn *in)
{
	unsigned size = in->opsize, n = 2;
	uint64_t slot[4] = { 0 }, extra = in->imm_size ? (uint16_t)in->imm : 0;
	struct descriptor cs, ss = { 0 };
	uint32_t error = 0;
	unsigned cpl;
	uint64_t desc;
	int vector = 0;

	for (unsigned i = 0; i < 2 && !vector; i++)
		vector = mem_load(cpu, cpu->gpr[RSP] + i * size, &slot[i], size, cpu->cpl == 3, &error);
	cpl = slot[1] & 3;
	if (!vector && cpl != cpu->cpl) {
		/* SS first, as processors have it where both fault. */
		n = 4;
		for (unsigned i = 3; i >= 2 && !vector; i--)
			vector = mem_load(cpu, cpu->gpr[RSP] + i * size + extra, &slot[i], size, cpu->cpl == 3, &error);
	}
	if (vector) {
		raise_access(cpu, vector, cpu->fault_va, error);
		return;
	}
	if (!code_segment(cpu, (uint16_t)slot[1], cpl, true, &cs))
		return;
	if (n == 4 && slot[3] & 0xfffc) {
		vector = read_descriptor(cpu, (uint16_t)slot[3], &desc, &error);
		if (vector) {
			raise_error(cpu, (unsigned)vector, error);
			return;
		}
		ss = parse_descriptor(desc);
	}
	cpu->rip = cs.attr & ATTR_L ? slot[0] : (uint32_t)slot[0];
	set_segment(cpu, SEG_CS, (uint16_t)slot[1], cs);
	if (n == 4) {
		cpu->gpr[RSP] = slot[2] + extra;
		if (slot[3] & 0xfffc)
			set_segment(cpu, SEG_SS, (uint16_t)slot[3], ss);
		else
			set_null(cpu, SEG_SS, (uint16_t)slot[3]);
		cpu->cpl = (uint8_t)cpl;
		drop_inner_segments(cpu);
	} else {
		cpu->gpr[RSP] += 2 * size + extra;
	}
	set_cpl(cpu, cpl);
}

void do_far(struct cpu *cpu, const struct insn *in, uint64_t next_rip)
{
	struct descriptor cs;
	uint64_t off = 0;
	uint16_t sel = 0;

	if (in->sys == SYS_RET_FAR) {
		far_return(cpu, in);
		return;
	}
	if (!load_far_pointer(cpu, in, &off, &sel) || !code_segment(cpu, sel, cpu->cpl, false, &cs))
		return;
	if (in->sys == SYS_CALL_FAR) {
		uint8_t frame[16] = { 0 };
		uint64_t old = cpu->seg[SEG_CS].sel;
		unsigned size = in->opsize;
		uint32_t error = 0;
		int vector;

		copy_bytes(frame, &next_rip, size);
		copy_bytes(frame + size, &old, size);
		vector = mem_store(cpu, cpu->gpr[RSP] - 2 * size, frame, 2 * size, cpu->cpl == 3, &error);
		if (vector) {
			raise_access(cpu, vector, cpu->fault_va, error);
			return;
		}
		cpu->gpr[RSP] -= 2 * size;
	}
	set_segment(cpu, SEG_CS, (uint16_t)((sel & ~3u) | cpu->cpl), cs);
	cpu->rip = cs.attr & ATTR_L ? off : (uint32_t)off;
	cpu_update_mode(cpu);
}
