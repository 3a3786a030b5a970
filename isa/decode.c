/* SPDX-License-Identifier: Apache-2.0 */
/*
 * insn_decode() on top of Zydis.  Zydis knows every encoding, operand and flag;
 * this file reduces that to what struct insn holds, and names the instructions
 * whose meaning depends on privilege or on state that the translator keeps.
 */
#include "isa/insn.h"

#include "base/checked.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <Zydis/Zydis.h>

struct special {
	uint16_t mnemonic;
	uint8_t op, sys;
	bool privileged;
};

/* Everything that is not INSN_COPY by default, by mnemonic. */
static const struct special specials[] = {
	{ ZYDIS_MNEMONIC_LEA, INSN_LEA, 0, false },
	{ ZYDIS_MNEMONIC_NOP, INSN_NOP, 0, false },
	{ ZYDIS_MNEMONIC_ENDBR32, INSN_NOP, 0, false },
	{ ZYDIS_MNEMONIC_ENDBR64, INSN_NOP, 0, false },
	{ ZYDIS_MNEMONIC_CLFLUSH, INSN_NOP, 0, false },
	{ ZYDIS_MNEMONIC_CLFLUSHOPT, INSN_NOP, 0, false },
	{ ZYDIS_MNEMONIC_CLWB, INSN_NOP, 0, false },
	{ ZYDIS_MNEMONIC_CLDEMOTE, INSN_NOP, 0, false },
	{ ZYDIS_MNEMONIC_UD0, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_UD1, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_UD2, INSN_UD, 0, false },

	{ ZYDIS_MNEMONIC_JMP, INSN_JMP, 0, false },
	{ ZYDIS_MNEMONIC_CALL, INSN_CALL, 0, false },
	{ ZYDIS_MNEMONIC_RET, INSN_RET, 0, false },
	{ ZYDIS_MNEMONIC_JCXZ, INSN_JCXZ, 0, false },
	{ ZYDIS_MNEMONIC_JECXZ, INSN_JCXZ, 0, false },
	{ ZYDIS_MNEMONIC_JRCXZ, INSN_JCXZ, 0, false },
	{ ZYDIS_MNEMONIC_LOOP, INSN_LOOP, 0, false },
	{ ZYDIS_MNEMONIC_LOOPE, INSN_LOOPE, 0, false },
	{ ZYDIS_MNEMONIC_LOOPNE, INSN_LOOPNE, 0, false },

	{ ZYDIS_MNEMONIC_PUSH, INSN_PUSH, 0, false },
	{ ZYDIS_MNEMONIC_POP, INSN_POP, 0, false },
	{ ZYDIS_MNEMONIC_PUSHF, INSN_PUSHF, 0, false },
	{ ZYDIS_MNEMONIC_PUSHFD, INSN_PUSHF, 0, false },
	{ ZYDIS_MNEMONIC_PUSHFQ, INSN_PUSHF, 0, false },
	{ ZYDIS_MNEMONIC_POPF, INSN_POPF, 0, false },
	{ ZYDIS_MNEMONIC_POPFD, INSN_POPF, 0, false },
	{ ZYDIS_MNEMONIC_POPFQ, INSN_POPF, 0, false },
	{ ZYDIS_MNEMONIC_PUSHA, INSN_PUSHA, 0, false },
	{ ZYDIS_MNEMONIC_PUSHAD, INSN_PUSHA, 0, false },
	{ ZYDIS_MNEMONIC_POPA, INSN_POPA, 0, false },
	{ ZYDIS_MNEMONIC_POPAD, INSN_POPA, 0, false },
	{ ZYDIS_MNEMONIC_LEAVE, INSN_LEAVE, 0, false },
	{ ZYDIS_MNEMONIC_ENTER, INSN_ENTER, 0, false },

	{ ZYDIS_MNEMONIC_MOVSB, INSN_MOVS, 0, false }, { ZYDIS_MNEMONIC_MOVSW, INSN_MOVS, 0, false },
	{ ZYDIS_MNEMONIC_MOVSD, INSN_MOVS, 0, false }, { ZYDIS_MNEMONIC_MOVSQ, INSN_MOVS, 0, false },
	{ ZYDIS_MNEMONIC_STOSB, INSN_STOS, 0, false }, { ZYDIS_MNEMONIC_STOSW, INSN_STOS, 0, false },
	{ ZYDIS_MNEMONIC_STOSD, INSN_STOS, 0, false }, { ZYDIS_MNEMONIC_STOSQ, INSN_STOS, 0, false },
	{ ZYDIS_MNEMONIC_LODSB, INSN_LODS, 0, false }, { ZYDIS_MNEMONIC_LODSW, INSN_LODS, 0, false },
	{ ZYDIS_MNEMONIC_LODSD, INSN_LODS, 0, false }, { ZYDIS_MNEMONIC_LODSQ, INSN_LODS, 0, false },
	{ ZYDIS_MNEMONIC_SCASB, INSN_SCAS, 0, false }, { ZYDIS_MNEMONIC_SCASW, INSN_SCAS, 0, false },
	{ ZYDIS_MNEMONIC_SCASD, INSN_SCAS, 0, false }, { ZYDIS_MNEMONIC_SCASQ, INSN_SCAS, 0, false },
	{ ZYDIS_MNEMONIC_CMPSB, INSN_CMPS, 0, false }, { ZYDIS_MNEMONIC_CMPSW, INSN_CMPS, 0, false },
	{ ZYDIS_MNEMONIC_CMPSD, INSN_CMPS, 0, false }, { ZYDIS_MNEMONIC_CMPSQ, INSN_CMPS, 0, false },
	{ ZYDIS_MNEMONIC_INSB, INSN_INS, 0, false }, { ZYDIS_MNEMONIC_INSW, INSN_INS, 0, false },
	{ ZYDIS_MNEMONIC_INSD, INSN_INS, 0, false },
	{ ZYDIS_MNEMONIC_OUTSB, INSN_OUTS, 0, false }, { ZYDIS_MNEMONIC_OUTSW, INSN_OUTS, 0, false },
	{ ZYDIS_MNEMONIC_OUTSD, INSN_OUTS, 0, false },

	{ ZYDIS_MNEMONIC_CLI, INSN_CLI, 0, true },
	{ ZYDIS_MNEMONIC_STI, INSN_STI, 0, true },
	{ ZYDIS_MNEMONIC_CLD, INSN_CLD, 0, false },
	{ ZYDIS_MNEMONIC_STD, INSN_STD, 0, false },

	{ ZYDIS_MNEMONIC_RDFSBASE, INSN_RDFSBASE, 0, false },
	{ ZYDIS_MNEMONIC_RDGSBASE, INSN_RDGSBASE, 0, false },
	{ ZYDIS_MNEMONIC_WRFSBASE, INSN_WRFSBASE, 0, false },
	{ ZYDIS_MNEMONIC_WRGSBASE, INSN_WRGSBASE, 0, false },
	{ ZYDIS_MNEMONIC_SWAPGS, INSN_SWAPGS, 0, true },
	{ ZYDIS_MNEMONIC_RDTSC, INSN_RDTSC, 0, false },
	{ ZYDIS_MNEMONIC_RDTSCP, INSN_RDTSCP, 0, false },
	{ ZYDIS_MNEMONIC_RDPID, INSN_RDPID, 0, false },

	{ ZYDIS_MNEMONIC_SYSCALL, INSN_SYSTEM, SYS_SYSCALL, false },
	{ ZYDIS_MNEMONIC_SYSRET, INSN_SYSTEM, SYS_SYSRET, true },
	{ ZYDIS_MNEMONIC_SYSENTER, INSN_SYSTEM, SYS_SYSENTER, false },
	{ ZYDIS_MNEMONIC_SYSEXIT, INSN_SYSTEM, SYS_SYSEXIT, true },
	{ ZYDIS_MNEMONIC_IRET, INSN_SYSTEM, SYS_IRET, false },
	{ ZYDIS_MNEMONIC_IRETD, INSN_SYSTEM, SYS_IRET, false },
	{ ZYDIS_MNEMONIC_IRETQ, INSN_SYSTEM, SYS_IRET, false },
	{ ZYDIS_MNEMONIC_INT, INSN_SYSTEM, SYS_INT, false },
	{ ZYDIS_MNEMONIC_INT3, INSN_SYSTEM, SYS_INT3, false },
	{ ZYDIS_MNEMONIC_INT1, INSN_SYSTEM, SYS_INT1, false },
	{ ZYDIS_MNEMONIC_INTO, INSN_SYSTEM, SYS_INTO, false },
	{ ZYDIS_MNEMONIC_HLT, INSN_SYSTEM, SYS_HLT, true },
	{ ZYDIS_MNEMONIC_CPUID, INSN_SYSTEM, SYS_CPUID, false },
	{ ZYDIS_MNEMONIC_RDMSR, INSN_SYSTEM, SYS_RDMSR, true },
	{ ZYDIS_MNEMONIC_WRMSR, INSN_SYSTEM, SYS_WRMSR, true },
	{ ZYDIS_MNEMONIC_RDPMC, INSN_SYSTEM, SYS_RDPMC, false },
	{ ZYDIS_MNEMONIC_XGETBV, INSN_SYSTEM, SYS_XGETBV, false },
	{ ZYDIS_MNEMONIC_XSETBV, INSN_SYSTEM, SYS_XSETBV, true },
	{ ZYDIS_MNEMONIC_IN, INSN_SYSTEM, SYS_IN, false },
	{ ZYDIS_MNEMONIC_OUT, INSN_SYSTEM, SYS_OUT, false },
	{ ZYDIS_MNEMONIC_CLTS, INSN_SYSTEM, SYS_CLTS, true },
	{ ZYDIS_MNEMONIC_LMSW, INSN_SYSTEM, SYS_LMSW, true },
	{ ZYDIS_MNEMONIC_SMSW, INSN_SYSTEM, SYS_SMSW, false },
	{ ZYDIS_MNEMONIC_INVLPG, INSN_SYSTEM, SYS_INVLPG, true },
	{ ZYDIS_MNEMONIC_INVPCID, INSN_SYSTEM, SYS_INVPCID, true },
	{ ZYDIS_MNEMONIC_INVD, INSN_SYSTEM, SYS_INVD, true },
	{ ZYDIS_MNEMONIC_WBINVD, INSN_SYSTEM, SYS_WBINVD, true },
	{ ZYDIS_MNEMONIC_LGDT, INSN_SYSTEM, SYS_LGDT, true },
	{ ZYDIS_MNEMONIC_LIDT, INSN_SYSTEM, SYS_LIDT, true },
	{ ZYDIS_MNEMONIC_SGDT, INSN_SYSTEM, SYS_SGDT, false },
	{ ZYDIS_MNEMONIC_SIDT, INSN_SYSTEM, SYS_SIDT, false },
	{ ZYDIS_MNEMONIC_LLDT, INSN_SYSTEM, SYS_LLDT, true },
	{ ZYDIS_MNEMONIC_LTR, INSN_SYSTEM, SYS_LTR, true },
	{ ZYDIS_MNEMONIC_SLDT, INSN_SYSTEM, SYS_SLDT, false },
	{ ZYDIS_MNEMONIC_STR, INSN_SYSTEM, SYS_STR, false },
	{ ZYDIS_MNEMONIC_LAR, INSN_SYSTEM, SYS_LAR, false },
	{ ZYDIS_MNEMONIC_LSL, INSN_SYSTEM, SYS_LSL, false },
	{ ZYDIS_MNEMONIC_VERR, INSN_SYSTEM, SYS_VERR, false },
	{ ZYDIS_MNEMONIC_VERW, INSN_SYSTEM, SYS_VERW, false },
	{ ZYDIS_MNEMONIC_ARPL, INSN_SYSTEM, SYS_ARPL, false },
	{ ZYDIS_MNEMONIC_LDS, INSN_SYSTEM, SYS_LOAD_FAR_PTR, false },
	{ ZYDIS_MNEMONIC_LES, INSN_SYSTEM, SYS_LOAD_FAR_PTR, false },
	{ ZYDIS_MNEMONIC_LFS, INSN_SYSTEM, SYS_LOAD_FAR_PTR, false },
	{ ZYDIS_MNEMONIC_LGS, INSN_SYSTEM, SYS_LOAD_FAR_PTR, false },
	{ ZYDIS_MNEMONIC_LSS, INSN_SYSTEM, SYS_LOAD_FAR_PTR, false },
	{ ZYDIS_MNEMONIC_XSAVE, INSN_SYSTEM, SYS_XSAVE, false },
	{ ZYDIS_MNEMONIC_XSAVE64, INSN_SYSTEM, SYS_XSAVE, false },
	{ ZYDIS_MNEMONIC_XSAVEOPT, INSN_SYSTEM, SYS_XSAVE, false },
	{ ZYDIS_MNEMONIC_XSAVEOPT64, INSN_SYSTEM, SYS_XSAVE, false },
	{ ZYDIS_MNEMONIC_XSAVEC, INSN_SYSTEM, SYS_XSAVEC, false },
	{ ZYDIS_MNEMONIC_XSAVEC64, INSN_SYSTEM, SYS_XSAVEC, false },
	{ ZYDIS_MNEMONIC_XRSTOR, INSN_SYSTEM, SYS_XRSTOR, false },
	{ ZYDIS_MNEMONIC_XRSTOR64, INSN_SYSTEM, SYS_XRSTOR, false },
	{ ZYDIS_MNEMONIC_FXSAVE, INSN_SYSTEM, SYS_FXSAVE, false },
	{ ZYDIS_MNEMONIC_FXSAVE64, INSN_SYSTEM, SYS_FXSAVE, false },
	{ ZYDIS_MNEMONIC_FXRSTOR, INSN_SYSTEM, SYS_FXRSTOR, false },
	{ ZYDIS_MNEMONIC_FXRSTOR64, INSN_SYSTEM, SYS_FXRSTOR, false },
	{ ZYDIS_MNEMONIC_VMCALL, INSN_SYSTEM, SYS_VMCALL, false },
	{ ZYDIS_MNEMONIC_VMMCALL, INSN_SYSTEM, SYS_VMCALL, false },
	{ ZYDIS_MNEMONIC_XLAT, INSN_SYSTEM, SYS_XLAT, false },
	{ ZYDIS_MNEMONIC_BOUND, INSN_SYSTEM, SYS_BOUND, false },
	{ ZYDIS_MNEMONIC_AAA, INSN_SYSTEM, SYS_DECIMAL, false },
	{ ZYDIS_MNEMONIC_AAD, INSN_SYSTEM, SYS_DECIMAL, false },
	{ ZYDIS_MNEMONIC_AAM, INSN_SYSTEM, SYS_DECIMAL, false },
	{ ZYDIS_MNEMONIC_AAS, INSN_SYSTEM, SYS_DECIMAL, false },
	{ ZYDIS_MNEMONIC_DAA, INSN_SYSTEM, SYS_DECIMAL, false },
	{ ZYDIS_MNEMONIC_DAS, INSN_SYSTEM, SYS_DECIMAL, false },
	{ ZYDIS_MNEMONIC_SALC, INSN_SYSTEM, SYS_SALC, false },
	{ ZYDIS_MNEMONIC_CLZERO, INSN_SYSTEM, SYS_CLZERO, false },

	/* Not offered to guests by the CPUID table, so undefined. */
	{ ZYDIS_MNEMONIC_CLAC, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_STAC, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_MONITOR, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_MWAIT, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_MONITORX, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_MWAITX, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_UMONITOR, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_UMWAIT, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_TPAUSE, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_XSAVES, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_XSAVES64, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_XRSTORS, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_XRSTORS64, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_RDPKRU, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_WRPKRU, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_RDPRU, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_MCOMMIT, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_RSM, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_GETSEC, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_PCONFIG, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_SERIALIZE, INSN_NOP, 0, false },
	{ ZYDIS_MNEMONIC_ENQCMD, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_ENQCMDS, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_MOVDIRI, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_MOVDIR64B, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_XBEGIN, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_XEND, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_XTEST, INSN_UD, 0, false },
	/* Hint space on processors without MPX. */
	{ ZYDIS_MNEMONIC_BNDMK, INSN_NOP, 0, false }, { ZYDIS_MNEMONIC_BNDCL, INSN_NOP, 0, false },
	{ ZYDIS_MNEMONIC_BNDCU, INSN_NOP, 0, false }, { ZYDIS_MNEMONIC_BNDCN, INSN_NOP, 0, false },
	{ ZYDIS_MNEMONIC_BNDMOV, INSN_NOP, 0, false }, { ZYDIS_MNEMONIC_BNDLDX, INSN_NOP, 0, false },
	{ ZYDIS_MNEMONIC_BNDSTX, INSN_NOP, 0, false },
	{ ZYDIS_MNEMONIC_WRSSD, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_WRSSQ, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_WRUSSD, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_WRUSSQ, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_RSTORSSP, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_SAVEPREVSSP, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_SETSSBSY, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_CLRSSBSY, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_RDSSPD, INSN_NOP, 0, false }, { ZYDIS_MNEMONIC_RDSSPQ, INSN_NOP, 0, false },
	{ ZYDIS_MNEMONIC_INCSSPD, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_INCSSPQ, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_SENDUIPI, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_CLUI, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_STUI, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_TESTUI, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_UIRET, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_CLGI, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_STGI, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_VMRUN, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_VMLOAD, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_VMSAVE, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_SKINIT, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_INVLPGA, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_INVLPGB, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_TLBSYNC, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_VMXON, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_VMXOFF, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_VMLAUNCH, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_VMRESUME, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_VMREAD, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_VMWRITE, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_VMCLEAR, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_VMPTRLD, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_VMPTRST, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_VMFUNC, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_INVEPT, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_INVVPID, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_ENCLS, INSN_UD, 0, false }, { ZYDIS_MNEMONIC_ENCLU, INSN_UD, 0, false },
	{ ZYDIS_MNEMONIC_ENCLV, INSN_UD, 0, false },
};

static uint8_t special_of[ZYDIS_MNEMONIC_MAX_VALUE + 1];	/* index + 1 in specials */
static uint8_t gpr_of[ZYDIS_REGISTER_MAX_VALUE + 1];	/* register number or INSN_REG_NONE */
static ZydisDecoder decoder64, decoder32;
static atomic_bool ready;	/* all of these are filled in */

_Static_assert(ARRAY_SIZE(specials) < 255, "special_of holds bytes");

static void begin(void)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction zi;
	static const uint8_t nop = 0x90;

	for (size_t i = 0; i < ARRAY_SIZE(specials); i++)
		special_of[specials[i].mnemonic] = (uint8_t)(i + 1);
	memset(gpr_of, INSN_REG_NONE, sizeof(gpr_of));
	for (unsigned i = 0; i < 16; i++) {
		gpr_of[ZYDIS_REGISTER_AX + i] = (uint8_t)i;
		gpr_of[ZYDIS_REGISTER_EAX + i] = (uint8_t)i;
		gpr_of[ZYDIS_REGISTER_RAX + i] = (uint8_t)i;
	}
	for (unsigned i = 0; i < 4; i++) {
		gpr_of[ZYDIS_REGISTER_AL + i] = (uint8_t)i;
		gpr_of[ZYDIS_REGISTER_AH + i] = (uint8_t)i;
	}
	for (unsigned i = 0; i < 12; i++)	/* SPL, BPL, SIL, DIL, R8B ... */
		gpr_of[ZYDIS_REGISTER_SPL + i] = (uint8_t)(i + 4);
	(void)ZydisDecoderInit(&decoder64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	(void)ZydisDecoderInit(&decoder32, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
	/* Each function once: it may be called where no library can be loaded any more. */
	(void)ZydisDecoderDecodeFull(&decoder64, &nop, 1, &zi, ops);
	(void)ZydisRegisterGetClass(ZYDIS_REGISTER_AX);
	atomic_store_explicit(&ready, true, memory_order_release);
}

void insn_begin(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, begin);
}

static void take_registers(struct insn *in, const ZydisDecodedOperand *op)
{
	uint8_t r;

	if (op->type == ZYDIS_OPERAND_TYPE_REGISTER) {
		r = gpr_of[op->reg.value];
		if (op->reg.value >= ZYDIS_REGISTER_AH && op->reg.value <= ZYDIS_REGISTER_BH)
			in->high_byte = 1;
		if (r == INSN_REG_NONE)
			return;
		if (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
			in->gpr_read |= (uint16_t)(1u << r);
		if (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) {
			in->gpr_written |= (uint16_t)(1u << r);
			/* A partial or conditional write keeps old bits. */
			if (op->size < 32 || !(op->actions & ZYDIS_OPERAND_ACTION_WRITE))
				in->gpr_read |= (uint16_t)(1u << r);
		}
	} else if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		r = gpr_of[op->mem.base];
		if (r != INSN_REG_NONE)
			in->gpr_read |= (uint16_t)(1u << r);
		r = gpr_of[op->mem.index];
		if (r != INSN_REG_NONE)
			in->gpr_read |= (uint16_t)(1u << r);
	}
}

static uint8_t log2_of(unsigned scale)
{
	return scale >= 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
}

static bool has_implicit_memory(const ZydisDecodedInstruction *zi)
{
	return zi->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || zi->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
	       zi->mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU || zi->mnemonic == ZYDIS_MNEMONIC_XLAT;
}

static void take_memory(struct insn *in, const ZydisDecodedInstruction *zi,
			const ZydisDecodedOperand *op)
{
	if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || (op->encoding == ZYDIS_OPERAND_ENCODING_NONE && !has_implicit_memory(zi)))
		return;
	if (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
		in->op = INSN_GATHER;
	in->mem = 1;
	in->mem_base = op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP ?
		INSN_REG_RIP : gpr_of[op->mem.base];
	in->mem_index = gpr_of[op->mem.index];
	in->mem_scale = log2_of(op->mem.scale);
	in->mem_disp = op->mem.disp.has_displacement ? op->mem.disp.value : 0;
	/* Zydis 4.0 names R13D as the base here when there are both 67h and REX.B. */
	if (in->sib_off && !(in->modrm & 0xc0) && (in->bytes[in->sib_off] & 7) == 5) {
		in->mem_base = INSN_REG_NONE;
		in->mem_disp = zi->raw.disp.value;
	}
	in->mem_seg = op->mem.segment == ZYDIS_REGISTER_FS ? 4 :
		op->mem.segment == ZYDIS_REGISTER_GS ? 5 : INSN_REG_NONE;
	if (op->mem.type == ZYDIS_MEMOP_TYPE_AGEN || op->mem.type == ZYDIS_MEMOP_TYPE_MIB)
		return;
	in->mem_size = op->size / 8;
	if (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
		in->mem_rw |= MEM_READ;
	if (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
		in->mem_rw |= MEM_WRITE;
	in->mem_elem = (uint8_t)(op->element_size / 8);
	if (zi->avx.mask.reg != ZYDIS_REGISTER_NONE && zi->avx.mask.reg != ZYDIS_REGISTER_K0)
		in->mem_masked = zi->meta.category == ZYDIS_CATEGORY_COMPRESS ||
			zi->meta.category == ZYDIS_CATEGORY_EXPAND ? MASK_K_PACKED : MASK_K;
}

static void take_flags(struct insn *in, const ZydisDecodedInstruction *zi)
{
	const ZydisAccessedFlags *f = zi->cpu_flags;

	if (!f)
		return;
	in->flags_read = f->tested & FLAGS_ARITH;
	in->flags_written = (f->modified | f->set_0 | f->set_1 | f->undefined) & FLAGS_ARITH;
	/*
	 * Processors leave many undefined flags as they were, and so do we.  AF is
	 * the exception: logic and shifts would otherwise keep it live for ever.
	 */
	in->flags_killed = (f->modified | f->set_0 | f->set_1 | (f->undefined & FLAG_AF)) & FLAGS_ARITH;
}

static bool is_conditional_jump(uint8_t opcode, uint8_t map)
{
	return (map == 0 && opcode >= 0x70 && opcode <= 0x7f) ||
	       (map == 1 && opcode >= 0x80 && opcode <= 0x8f);
}

static bool has_prefix(const struct insn *in, uint8_t a, uint8_t b)
{
	for (unsigned i = 0; i < in->prefix_len; i++)
		if (in->bytes[i] == a || in->bytes[i] == b)
			return true;
	return false;
}

/* Segment by prefix, for operands that Zydis does not have: the last one counts; in 64-bit mode only FS: and GS: are prefixes. */
static uint8_t segment_by_prefix(const struct insn *in)
{
	uint8_t seg = INSN_REG_NONE;

	for (unsigned i = 0; i < in->prefix_len; i++)
		switch (in->bytes[i]) {
		case 0x64: seg = 4; break;
		case 0x65: seg = 5; break;
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e: seg = in->mode64 ? seg : INSN_REG_NONE; break;
		default: break;
		}
	return seg;
}

/* Instructions whose class depends on operands rather than on the mnemonic. */
static void refine(struct insn *in, const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops)
{
	bool legacy = in->enc == ENC_LEGACY;

	/* Its opcode comes last, and is no other map's: no processor since 2011 has it. */
	if (zi->encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW) {
		in->op = INSN_UD;
		return;
	}
	if (legacy && is_conditional_jump(in->opcode, in->map)) {
		in->op = INSN_JCC;
		in->cond = in->opcode & 15;
		return;
	}
	switch (in->op) {
	case INSN_JMP:
	case INSN_CALL:
		if (zi->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
			in->sys = in->op == INSN_JMP ? SYS_JMP_FAR : SYS_CALL_FAR;
			in->op = INSN_SYSTEM;
		} else if (ops[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE) {
			in->op = in->op == INSN_JMP ? INSN_JMP_IND : INSN_CALL_IND;
		}
		return;
	case INSN_RET:
		if (zi->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
			in->op = INSN_SYSTEM;
			in->sys = SYS_RET_FAR;
		}
		return;
	case INSN_PUSH:
	case INSN_POP:
		if (ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_of[ops[0].reg.value] == INSN_REG_NONE)
			in->op = in->op == INSN_PUSH ? INSN_PUSH_SEG : INSN_POP_SEG;
		return;
	case INSN_MOVS:
	case INSN_CMPS:	/* MOVSD and CMPSD are SSE instructions too */
		if (zi->meta.category != ZYDIS_CATEGORY_STRINGOP)
			in->op = INSN_COPY;
		else
			in->mem_seg = segment_by_prefix(in);
		return;
	case INSN_LODS:
	case INSN_OUTS:
		in->mem_seg = segment_by_prefix(in);
		return;
	default:
		break;
	}
	if (in->sys == SYS_CLZERO && in->op == INSN_SYSTEM) {
		if (has_prefix(in, 0xf2, 0xf3))
			in->op = INSN_UD;
		in->mem_base = 0;	/* RAX; Zydis has no operand for it */
		in->mem_seg = segment_by_prefix(in);
	} else if (legacy && in->map == 1 && in->opcode >= 0x20 && in->opcode <= 0x23) {
		static const uint8_t kinds[] = { SYS_MOV_FROM_CR, SYS_MOV_FROM_DR, SYS_MOV_TO_CR, SYS_MOV_TO_DR };

		in->op = INSN_SYSTEM;
		in->sys = kinds[in->opcode - 0x20];
		in->privileged = 1;
	} else if (legacy && in->map == 0 && (in->opcode == 0x8c || in->opcode == 0x8e)) {
		in->op = INSN_SYSTEM;
		in->sys = in->opcode == 0x8c ? SYS_MOV_FROM_SEG : SYS_MOV_TO_SEG;
	} else if (legacy && in->map == 0 && in->opcode == 0x90 && in->rex & 1) {
		/* F3 REX.B 90 is PAUSE to Zydis and XCHG R8, RAX to some processors. */
		in->gpr_read |= 1u << 8 | 1u << 0;
		in->gpr_written |= 1u << 8 | 1u << 0;
	} else if (legacy && in->map == 1 && in->opcode == 0x0d && !in->mem) {
		in->op = INSN_COPY;	/* PREFETCHW of a register: #UD or not is the processor's choice */
	} else if (zi->meta.category == ZYDIS_CATEGORY_PREFETCH && !legacy) {
		in->op = INSN_UD;	/* of Knights processors only */
	} else if (zi->meta.category == ZYDIS_CATEGORY_PREFETCH || zi->meta.category == ZYDIS_CATEGORY_PREFETCHWT1) {
		in->op = INSN_NOP;
	} else if (zi->meta.category == ZYDIS_CATEGORY_AMX_TILE || zi->meta.category == ZYDIS_CATEGORY_KEYLOCKER ||
		   zi->meta.category == ZYDIS_CATEGORY_KEYLOCKER_WIDE || zi->meta.isa_ext == ZYDIS_ISA_EXT_XOP ||
		   zi->meta.isa_ext == ZYDIS_ISA_EXT_FMA4 || zi->meta.isa_ext == ZYDIS_ISA_EXT_TBM ||
		   zi->meta.category == ZYDIS_CATEGORY_PADLOCK) {
		in->op = INSN_UD;
	}
}

/* FISTTP is SSE3 to Zydis. */
static bool is_x87(const ZydisDecodedInstruction *zi)
{
	return zi->meta.isa_set == ZYDIS_ISA_SET_X87 || zi->mnemonic == ZYDIS_MNEMONIC_FISTTP;
}

static bool touches_fpu(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops)
{
	if (is_x87(zi))
		return true;
	for (unsigned i = 0; i < zi->operand_count; i++) {
		if (ops[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch ((int)ZydisRegisterGetClass(ops[i].reg.value)) {
		case ZYDIS_REGCLASS_X87:
		case ZYDIS_REGCLASS_MMX:
		case ZYDIS_REGCLASS_XMM:
		case ZYDIS_REGCLASS_YMM:
		case ZYDIS_REGCLASS_ZMM:
		case ZYDIS_REGCLASS_MASK:
			return true;
		default:
			break;
		}
		if (ops[i].reg.value == ZYDIS_REGISTER_MXCSR)
			return true;
	}
	return false;
}

/* Reports pending x87 exceptions before it does anything (SDM vol. 1, 8.6). */
static bool waits_for_x87(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops)
{
	if (is_x87(zi))
		return true;
	for (unsigned i = 0; i < zi->operand_count_visible; i++)
		if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(ops[i].reg.value) == ZYDIS_REGCLASS_MMX)
			return true;
	return false;
}

/*
 * What the address of a wide operand must be a multiple of, or else #GP comes before a page fault (SDM vol. 2, 2.4 and 2.8): without
 * VEX and EVEX 16 but for moves and comparisons made for any address, with them nothing but for moves made for aligned ones.
 */
static uint8_t required_alignment(const struct insn *in, ZydisMnemonic mnemonic)
{
	if (in->mem_size < 16)
		return 0;
	switch ((int)mnemonic) {
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
		return 0;
	case ZYDIS_MNEMONIC_VMOVAPS:
	case ZYDIS_MNEMONIC_VMOVAPD:
	case ZYDIS_MNEMONIC_VMOVDQA:
	case ZYDIS_MNEMONIC_VMOVDQA32:
	case ZYDIS_MNEMONIC_VMOVDQA64:
	case ZYDIS_MNEMONIC_VMOVNTPS:
	case ZYDIS_MNEMONIC_VMOVNTPD:
	case ZYDIS_MNEMONIC_VMOVNTDQ:
	case ZYDIS_MNEMONIC_VMOVNTDQA:
		return (uint8_t)in->mem_size;
	default:
		return in->enc != ENC_LEGACY ? 0 : in->mem_size == 16 ? 16 : CAREFUL_ALWAYS;
	}
}

static uint8_t encoding_of(ZydisInstructionEncoding e)
{
	return e == ZYDIS_INSTRUCTION_ENCODING_VEX ? ENC_VEX :
	       e == ZYDIS_INSTRUCTION_ENCODING_EVEX ? ENC_EVEX : ENC_LEGACY;
}

static uint8_t map_of(ZydisOpcodeMap m)
{
	switch ((int)m) {
	case ZYDIS_OPCODE_MAP_0F: return 1;
	case ZYDIS_OPCODE_MAP_0F38: return 2;
	case ZYDIS_OPCODE_MAP_0F3A: return 3;
	case ZYDIS_OPCODE_MAP_MAP5: return 5;
	case ZYDIS_OPCODE_MAP_MAP6: return 6;
	default: return 0;
	}
}

static void take_layout(struct insn *in, const ZydisDecodedInstruction *zi)
{
	const ZydisDecodedInstructionRaw *raw = &zi->raw;

	in->prefix_len = raw->prefix_count;	/* a REX that is not the last of them counts for nothing */
	if (in->enc == ENC_LEGACY && (zi->attributes & ZYDIS_ATTRIB_HAS_REX)) {
		in->rex = in->bytes[raw->rex.offset];
		in->prefix_len = raw->rex.offset;
	}
	if (in->enc == ENC_VEX)
		in->prefix_len = raw->vex.offset;
	if (in->enc == ENC_EVEX)
		in->prefix_len = raw->evex.offset;
	in->opcode_off = (uint8_t)(in->prefix_len + (in->rex ? 1 : 0));
	if (zi->attributes & ZYDIS_ATTRIB_HAS_MODRM) {
		in->modrm_off = raw->modrm.offset;
		in->modrm = in->bytes[raw->modrm.offset];
	}
	if (zi->attributes & ZYDIS_ATTRIB_HAS_SIB)
		in->sib_off = raw->sib.offset;
	in->disp_off = raw->disp.offset;
	in->disp_size = raw->disp.size / 8;
	in->imm_off = raw->imm[0].offset;
	in->imm_size = (uint8_t)((raw->imm[0].size + raw->imm[1].size) / 8);
	in->imm = raw->imm[0].is_signed || raw->imm[0].is_relative ? raw->imm[0].value.s :
		(int64_t)raw->imm[0].value.u;
	in->imm2 = (int64_t)raw->imm[1].value.u;
}

/* W selects 64-bit general operands, implicit ones too; outside 64-bit mode it is ignored where it would do so. */
static bool w_means_gpr_size(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops)
{
	switch ((int)zi->mnemonic) {
	case ZYDIS_MNEMONIC_VMOVD:
	case ZYDIS_MNEMONIC_VPEXTRD:
	case ZYDIS_MNEMONIC_VPINSRD:
	case ZYDIS_MNEMONIC_VPCMPESTRI:
	case ZYDIS_MNEMONIC_VPCMPESTRM:
	case ZYDIS_MNEMONIC_VCVTSI2SD:
	case ZYDIS_MNEMONIC_VCVTSI2SS:
	case ZYDIS_MNEMONIC_VCVTSI2SH:
	case ZYDIS_MNEMONIC_VCVTUSI2SD:
	case ZYDIS_MNEMONIC_VCVTUSI2SS:
	case ZYDIS_MNEMONIC_VCVTUSI2SH:
		return true;
	default:
		break;
	}
	for (unsigned i = 0; i < zi->operand_count_visible; i++)
		if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_of[ops[i].reg.value] != INSN_REG_NONE)
			return true;
	return false;
}

/*
 * Bits of VEX and EVEX that 32-bit code leaves unused have a meaning in 64-bit
 * mode, where the bytes will run: makes them say the same there.
 */
static void vex_for_64bit(struct insn *in, const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops)
{
	uint8_t *v = in->bytes + in->opcode_off;

	if (in->enc == ENC_EVEX) {
		v[1] |= 0xf0;	/* R, X, B, R': no registers beyond 7 */
		v[2] |= 0x40;	/* vvvv */
		v[3] |= 0x08;	/* V' */
	} else if (v[0] == 0xc4) {
		v[1] |= 0xe0;
		v[2] |= 0x40;
	} else {
		v[1] |= 0xc0;
	}
	if (v[0] != 0xc5 && w_means_gpr_size(zi, ops))
		v[2] &= 0x7f;
	for (unsigned i = 0; i < zi->operand_count_visible; i++)
		if (ops[i].encoding == ZYDIS_OPERAND_ENCODING_IS4)
			in->bytes[in->len - 1] &= 0x7f;
}

static int undefined(struct insn *in, const uint8_t *bytes, size_t avail)
{
	/* Length is unknown and irrelevant: #UD reports the first byte. */
	in->len = 1;
	in->op = INSN_UD;
	in->bytes[0] = avail ? bytes[0] : 0;
	return 0;
}

/* Shifts, rotates and repeated comparisons whose count is (or may be) zero leave all flags alone. */
static bool may_keep_flags(const struct insn *in)
{
	if (in->enc != ENC_LEGACY)
		return false;
	if ((in->op == INSN_SCAS || in->op == INSN_CMPS) && in->rep)
		return true;
	if (in->map == 0)
		return in->opcode == 0xd2 || in->opcode == 0xd3 ||
		       ((in->opcode == 0xc0 || in->opcode == 0xc1) && !(in->imm & 0x1f));
	return in->map == 1 && (in->opcode == 0xa5 || in->opcode == 0xad ||
				((in->opcode == 0xa4 || in->opcode == 0xac) && !(in->imm & 0x1f)));
}

int insn_decode(const uint8_t *bytes, size_t avail, bool mode64, struct insn *ret_insn)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction zi;
	struct insn *in = ret_insn;
	ZyanStatus status;

	if (!atomic_load_explicit(&ready, memory_order_acquire))
		insn_begin();
	if (avail > INSN_LEN_MAX)
		avail = INSN_LEN_MAX;
	memset(in, 0, sizeof(*in));
	in->mode64 = mode64;
	in->mem_seg = in->mem_base = in->mem_index = INSN_REG_NONE;
	status = ZydisDecoderDecodeFull(mode64 ? &decoder64 : &decoder32, bytes, avail, &zi, ops);
	if (status == ZYDIS_STATUS_NO_MORE_DATA)
		return avail == INSN_LEN_MAX ? -E2BIG : -ENODATA;
	if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
		return -E2BIG;
	if (!ZYAN_SUCCESS(status))
		return undefined(in, bytes, avail);

	memcpy(in->bytes, bytes, zi.length);
	in->len = zi.length;
	in->enc = encoding_of(zi.encoding);
	in->map = map_of(zi.opcode_map);
	in->opcode = zi.opcode;
	in->opsize = zi.operand_width / 8;
	in->addrsize = zi.address_width / 8;
	in->lock = !!(zi.attributes & ZYDIS_ATTRIB_HAS_LOCK);
	in->rep = zi.attributes & ZYDIS_ATTRIB_HAS_REPNE ? REP_REPNE :
		zi.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE) ? REP_REP : REP_NONE;
	take_layout(in, &zi);
	if (special_of[zi.mnemonic]) {
		const struct special *s = &specials[special_of[zi.mnemonic] - 1];

		in->op = s->op;
		in->sys = s->sys;
		in->privileged = s->privileged;
	}
	if (!mode64 && in->enc != ENC_LEGACY)
		vex_for_64bit(in, &zi, ops);
	for (unsigned i = 0; i < zi.operand_count; i++)
		take_registers(in, &ops[i]);
	for (unsigned i = 0; i < zi.operand_count_visible; i++)
		take_memory(in, &zi, &ops[i]);
	if (has_implicit_memory(&zi))
		for (unsigned i = zi.operand_count_visible; i < zi.operand_count; i++)
			take_memory(in, &zi, &ops[i]);
	take_flags(in, &zi);
	refine(in, &zi, ops);
	in->uses_fpu = touches_fpu(&zi, ops);
	/* VMASKMOV and VPMASKMOV mask by a vector register. */
	if (zi.mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS || zi.mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD ||
	    zi.mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD || zi.mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ)
		in->mem_masked = MASK_VECTOR;
	if (in->mem && has_implicit_memory(&zi)) {
		in->mem_implicit = 1;
		in->mem_index = INSN_REG_NONE;
		in->mem_masked = in->op == INSN_COPY ? MASK_BYTES : MASK_NONE;
	}
	in->mem_careful = in->mem_masked || waits_for_x87(&zi, ops) ? CAREFUL_ALWAYS : required_alignment(in, zi.mnemonic);
	if (may_keep_flags(in))
		in->flags_killed = 0;
	return 0;
}
