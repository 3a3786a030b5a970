/* SPDX-License-Identifier: Apache-2.0 */
/* An exception with no way to handle it ends the machine. */
#include "guest.h"

int guest_main(void)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) none = { 0, 0 };

	print("no IDT\n");
	asm volatile("lidt %0\n\tud2" : : "m"(none));
	print("FAIL went on\n");
	return 1;
}
