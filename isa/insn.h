/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One decoded x86-64 instruction: what a translator or an MMIO emulator must
 * know of it, and where its fields lie in the original bytes so that it can be
 * re-encoded with another memory operand.
 *
 * Most instructions are INSN_COPY: nothing but their registers, flags and one
 * memory operand matters, because they run on the host as they are.
 */
#ifndef ISA_INSN_H
#define ISA_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INSN_LEN_MAX 15
#define INSN_MEM_MAX 128	/* at least mem_size of any INSN_COPY (FNSAVE: 108 bytes) */

enum insn_op {
	INSN_COPY,	/* runs on the host as it is, memory operand replaced */
	INSN_LEA,
	INSN_NOP,	/* architectural no-op (hint, prefetch, ENDBR), operand never accessed */
	INSN_UD,	/* raises #UD: undefined, or not offered to guests */

	/* control flow; rel targets in .imm, relative to the next instruction */
	INSN_JMP, INSN_JCC, INSN_CALL, INSN_JMP_IND, INSN_CALL_IND, INSN_RET,
	INSN_JCXZ, INSN_LOOP, INSN_LOOPE, INSN_LOOPNE,

	/* stack */
	INSN_PUSH, INSN_POP, INSN_PUSHF, INSN_POPF, INSN_LEAVE, INSN_ENTER, INSN_PUSHA, INSN_POPA,
	INSN_PUSH_SEG, INSN_POP_SEG,

	/* strings; .rep says how repeated */
	INSN_MOVS, INSN_STOS, INSN_LODS, INSN_SCAS, INSN_CMPS, INSN_INS, INSN_OUTS,

	/* flags the translator keeps elsewhere */
	INSN_CLI, INSN_STI, INSN_CLD, INSN_STD,

	/* segment bases */
	INSN_RDFSBASE, INSN_RDGSBASE, INSN_WRFSBASE, INSN_WRGSBASE, INSN_SWAPGS,

	INSN_RDTSC, INSN_RDTSCP, INSN_RDPID,

	/* everything else that needs an interpreter: system, far, descriptor, decimal */
	INSN_SYSTEM,
	INSN_GATHER,	/* VSIB: many addresses */
};

/* What an INSN_SYSTEM does. */
enum insn_sys {
	SYS_NONE,
	SYS_SYSCALL, SYS_SYSRET, SYS_SYSENTER, SYS_SYSEXIT, SYS_IRET, SYS_INT, SYS_INT3, SYS_INT1, SYS_INTO,
	SYS_HLT, SYS_CPUID, SYS_RDMSR, SYS_WRMSR, SYS_RDPMC, SYS_XGETBV, SYS_XSETBV,
	SYS_IN, SYS_OUT, SYS_MOV_FROM_CR, SYS_MOV_TO_CR, SYS_MOV_FROM_DR, SYS_MOV_TO_DR,
	SYS_CLTS, SYS_LMSW, SYS_SMSW, SYS_INVLPG, SYS_INVPCID, SYS_INVD, SYS_WBINVD,
	SYS_LGDT, SYS_LIDT, SYS_SGDT, SYS_SIDT, SYS_LLDT, SYS_LTR, SYS_SLDT, SYS_STR,
	SYS_LAR, SYS_LSL, SYS_VERR, SYS_VERW, SYS_ARPL,
	SYS_MOV_FROM_SEG, SYS_MOV_TO_SEG, SYS_LOAD_FAR_PTR,
	SYS_JMP_FAR, SYS_CALL_FAR, SYS_RET_FAR,
	SYS_XSAVE, SYS_XSAVEC, SYS_XRSTOR, SYS_FXSAVE, SYS_FXRSTOR,
	SYS_VMCALL, SYS_CLAC, SYS_STAC, SYS_MONITOR, SYS_MWAIT, SYS_XLAT, SYS_BOUND,
	SYS_DECIMAL, SYS_SALC, SYS_CLZERO, SYS_X87_ENV,
};

#define FLAG_CF (1u << 0)
#define FLAG_PF (1u << 2)
#define FLAG_AF (1u << 4)
#define FLAG_ZF (1u << 6)
#define FLAG_SF (1u << 7)
#define FLAG_TF (1u << 8)
#define FLAG_IF (1u << 9)
#define FLAG_DF (1u << 10)
#define FLAG_OF (1u << 11)
#define FLAG_IOPL (3u << 12)
#define FLAG_NT (1u << 14)
#define FLAG_RF (1u << 16)
#define FLAG_VM (1u << 17)
#define FLAG_AC (1u << 18)
#define FLAG_ID (1u << 21)
#define FLAGS_ARITH (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

enum { INSN_REG_NONE = 0xff, INSN_REG_RIP = 0x10 };
enum { REP_NONE, REP_REP, REP_REPNE };	/* REPE shares REP_REP */
enum { MEM_READ = 1, MEM_WRITE = 2 };
enum insn_mask {
	MASK_NONE,
	MASK_K,	/* opmask register, an element each */
	MASK_K_PACKED,	/* opmask register, but selected elements lie side by side (compress, expand) */
	MASK_BYTES,	/* sign bits of the bytes of the ModRM.rm register (MASKMOVQ, MASKMOVDQU) */
	MASK_VECTOR,	/* sign bits of the elements of the VEX.vvvv register */
};
enum insn_encoding { ENC_LEGACY, ENC_VEX, ENC_EVEX };

struct insn {
	uint8_t bytes[INSN_LEN_MAX];	/* as found; VEX and EVEX of 32-bit code as 64-bit code would have them */
	uint8_t len;
	uint8_t op;	/* enum insn_op */
	uint8_t sys;	/* enum insn_sys, for INSN_SYSTEM */
	uint8_t enc;	/* enum insn_encoding */
	uint8_t mode64;	/* decoded for 64-bit mode, else 32-bit */
	uint8_t opsize;	/* effective operand size, bytes */
	uint8_t addrsize;	/* effective address size, bytes: 2, 4 or 8 */
	uint8_t rep;	/* REP_* */
	uint8_t lock;
	uint8_t opcode;
	uint8_t map;	/* 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A, 5, 6 */

	/* where fields lie in bytes[]; 0 when absent */
	uint8_t prefix_len;	/* legacy prefixes without REX/VEX/EVEX; may hold REX bytes without effect */
	uint8_t rex;	/* the REX byte, 0 when absent */
	uint8_t opcode_off;	/* first byte of the opcode proper, after REX/VEX/EVEX and 0F escapes kept */
	uint8_t modrm_off, sib_off, disp_off, disp_size, imm_off, imm_size;
	uint8_t modrm;
	uint8_t cond;	/* of Jcc, as in the opcode */

	/* memory operand, when mem is set (LEA and NOP have it too, with mem_rw 0) */
	uint8_t mem;
	uint8_t mem_rw;	/* MEM_* */
	uint8_t mem_seg;	/* SEG_FS, SEG_GS or INSN_REG_NONE: only these have bases; also of [RSI] of string instructions, of CLZERO */
	uint8_t mem_base;	/* register, INSN_REG_RIP or INSN_REG_NONE */
	uint8_t mem_index;	/* register or INSN_REG_NONE */
	uint8_t mem_scale;	/* log2 */
	uint8_t mem_masked;	/* enum insn_mask: elements not selected are not accessed and cannot fault */
	uint8_t mem_elem;	/* bytes an element, for masked operands */
	uint8_t mem_careful;	/* what may come before a page fault: insn_fault_is_sure() */
	uint8_t mem_implicit;	/* not in ModRM: [RDI] of MASKMOVQ and MASKMOVDQU, [RBX] of XLAT without AL */
	uint16_t mem_size;	/* bytes accessed at most */
	int64_t mem_disp;

	int64_t imm;	/* first immediate, sign-extended */
	int64_t imm2;

	uint16_t gpr_read, gpr_written;	/* bit per register, implicit ones too */
	uint8_t high_byte;	/* uses AH, CH, DH or BH: takes no REX prefix */
	uint8_t uses_fpu;	/* x87, MMX, SSE, AVX: #NM when CR0.TS */
	uint8_t privileged;	/* #GP at CPL 3 */
	uint32_t flags_read;	/* FLAGS_ARITH bits */
	uint32_t flags_killed;	/* FLAGS_ARITH bits surely overwritten */
	uint32_t flags_written;	/* FLAGS_ARITH bits possibly changed */
};

#define CAREFUL_ALWAYS 255	/* insn.mem_careful: a mask, a pending x87 exception */

/* Whether a page fault at @va, where its operand is, is what the instruction gets.  @careful: insn.mem_careful, which may be an alignment. */
static inline bool insn_fault_is_sure(uint8_t careful, uint64_t va)
{
	return !careful || (careful != CAREFUL_ALWAYS && !(va & (careful - 1u)));
}

/* General registers that the two fields of ModRM name, REX included (not VEX, EVEX). */
static inline unsigned insn_reg(const struct insn *in)
{
	return (in->modrm >> 3 & 7) | (in->rex & 4 ? 8 : 0);
}

static inline unsigned insn_rm(const struct insn *in)
{
	return (in->modrm & 7) | (in->rex & 1 ? 8 : 0);
}

/*
 * Loads what insn_decode() needs, which does so itself otherwise: to be called first by who cannot open files later.  Any thread.
 */
void insn_begin(void);

/*
 * Decodes one instruction from @bytes, of which @avail (1..15) may be read.
 * @mode64: 64-bit mode, else 32-bit protected or compatibility mode.
 *
 * Returns 0 and fills @ret_insn; undefined encodings succeed with INSN_UD.
 * Returns -ENODATA when the instruction continues past @avail, -E2BIG when it
 * is longer than 15 bytes (the CPU raises #GP).
 */
int insn_decode(const uint8_t *bytes, size_t avail, bool mode64, struct insn *ret_insn);

#endif /* ISA_INSN_H */
