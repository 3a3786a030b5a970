/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/diff/directed.h"

#include "base/checked.h"

#include <string.h>

struct directed {
	const char *name;
	uint16_t off;
	const char *code;
	uint16_t len;
};

#define CODE(text) text, sizeof(text) - 1

static const struct directed items[] = {
	{ "a store changes the next instruction", 0x100,
	  CODE("\xc6\x05\x01\x00\x00\x00\x55" /* mov byte [rip+1], 0x55 */ "\xb8\x11\x22\x33\x44" /* mov eax, imm */) },
	{ "a store changes an instruction that ran before", 0x100,
	  CODE("\xb9\x03\x00\x00\x00" /* mov ecx, 3 */
	       "\x04\x01" /* back: add al, 1 */
	       "\xfe\x05\xf9\xff\xff\xff" /* inc byte [rip - 7]: its immediate */
	       "\xe2\xf6" /* loop back */) },
	{ "an instruction crosses the page", 0xffd, CODE("\xb8\x11\x22\x33\x44\x90") },
	{ "a store changes the second page of a crossing instruction", 0xff0,
	  CODE("\xb9\x02\x00\x00\x00" /* mov ecx, 2 */
	       "\x48\x31\xd2" /* xor rdx, rdx */
	       "\x90\x90\x90\x90\x90"
	       "\xba\x11\x22\x33\x44" /* back: mov edx, imm; crosses at its third byte of immediate */
	       "\xfe\x05\xf9\xff\xff\xff" /* inc byte [rip - 7]: last byte of the immediate */
	       "\xe2\xf3" /* loop back */) },
	{ "code runs off its pages", 0x1ffa, CODE("\x31\xc0\xff\xc0\xff") },
	{ "rep movsb faults half-way", 0x200,
	  CODE("\xbe\x40\x10\x00\x20" /* mov esi, DATA + 0x1040 */
	       "\xbf\xe0\x3f\x00\x20" /* mov edi, 32 bytes before the read-only page */
	       "\xb9\x64\x00\x00\x00" "\xf3\xa4") },
	{ "rep movsq faults half-way at a crossing element", 0x200,
	  CODE("\xbe\x40\x10\x00\x20"
	       "\xbf\xe4\x3f\x00\x20"
	       "\xb9\x64\x00\x00\x00" "\xf3\x48\xa5") },
	{ "rep movsb reads past the end", 0x200,
	  CODE("\xbe\xf0\x4f\x00\x20" /* 16 bytes before the end of the read-only page */
	       "\xbf\x00\x10\x00\x20"
	       "\xb9\x64\x00\x00\x00" "\xf3\xa4") },
	{ "backward rep stosd faults below the first page", 0x200,
	  CODE("\xfd" "\xbf\x20\x00\x00\x20" "\xb9\x64\x00\x00\x00" "\xf3\xab") },
	{ "overlapping rep movsb repeats a byte", 0x200,
	  CODE("\xbe\xf0\x0f\x00\x20" "\xbf\xf1\x0f\x00\x20" "\xb9\x40\x00\x00\x00" "\xf3\xa4") },
	{ "repe cmpsb faults half-way", 0x200,
	  CODE("\xbe\xf8\x4f\x00\x20" "\xbf\xf8\x4f\x00\x20" "\xb9\x40\x00\x00\x00" "\x31\xc0" "\xf3\xa6") },
	{ "a push run leaves the stack at its bottom", 0x300,
	  CODE("\xbc\x14\x00\x00\x30" /* mov esp, STACK + 20 */
	       "\x50\x51\x52\x53\x54") },
	{ "a push run crosses a page", 0x300,
	  CODE("\xbc\x0c\x10\x00\x30" "\x50\x51\x52\x41\x56\x41\x57\x5f\x5e\x5b") },
	{ "a pop run leaves the stack at its top", 0x300,
	  CODE("\xbc\xf0\x2f\x00\x30" "\x5b\x5d\x5e\x5f") },
	{ "a call faults on its push", 0x300,
	  CODE("\xbc\x04\x00\x00\x30" "\xe8\x00\x00\x00\x00") },
	{ "pop to memory through RSP", 0x300,
	  CODE("\xbc\xf8\x1f\x00\x30" "\x8f\x04\x24" "\x8f\x44\x24\x08") },
	{ "push memory through RSP over a page border", 0x300,
	  CODE("\xbc\x04\x10\x00\x30" "\xff\x34\x24" "\xff\x74\x24\xf8") },
	{ "enter with nesting crosses a page", 0x300,
	  CODE("\xbc\x10\x10\x00\x30" "\xbd\x20\x20\x00\x30" "\xc8\x20\x00\x03" "\xc9") },
	{ "locked cmpxchg16b at a page border faults when misaligned", 0x300,
	  CODE("\xbb\xf8\x1f\x00\x20" "\xf0\x48\x0f\xc7\x0b") },
	{ "locked add crosses a page", 0x300,
	  CODE("\xbb\xfd\x1f\x00\x20" "\xf0\x01\x03" "\xf0\x48\x0f\xc1\x03") },
	{ "div by zero behind a store", 0x300,
	  CODE("\xbb\x00\x10\x00\x20" "\x89\x03" "\x31\xc9" "\xf7\xf1" "\x89\x43\x04") },
	{ "a non-canonical address", 0x300,
	  CODE("\x48\xbb\x00\x00\x00\x00\x00\x00\x00\x80" "\x48\x8b\x03") },
	{ "a non-canonical stack", 0x300,
	  CODE("\x48\xbc\x00\x00\x00\x00\x00\x00\x00\x80" "\x50") },
	{ "a non-canonical address through RBP", 0x300,
	  CODE("\x48\xbd\x00\x00\x00\x00\x00\x00\x00\x80" "\x48\x8b\x45\x08") },
	{ "a jump to a non-canonical address", 0x300,
	  CODE("\x48\xbb\x00\x00\x00\x00\x00\x00\x00\x80" "\xff\xe3") },
	{ "a jump to a page that may not execute", 0x300,
	  CODE("\xbb\x10\x10\x00\x20" "\xff\xe3") },
	{ "a read of the kernel", 0x300,
	  CODE("\x48\xc7\xc3\x00\x00\x00\x80" "\x8b\x03") },
	{ "hlt, undefined and too long instructions", 0x300, CODE("\x90\xf4") },
	{ "sixteen bytes of prefixes", 0x300, CODE("\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90") },
	{ "undefined instruction", 0x300, CODE("\x90\x0f\x0b") },
};

const char *directed_item(unsigned index, struct item *ret_item)
{
	const struct directed *d = &items[index % ARRAY_SIZE(items)];
	unsigned round = index / (unsigned)ARRAY_SIZE(items);

	if (round >= 4)	/* different registers, memory and state of the TLB */
		return NULL;
	*ret_item = (struct item){ .seed = 0x1234567 + round, .off = d->off, .len = d->len };
	memcpy(ret_item->code, d->code, d->len);
	return d->name;
}
