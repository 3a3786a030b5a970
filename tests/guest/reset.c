/* SPDX-License-Identifier: Apache-2.0 */
/* The keyboard controller's reset line. */
#include "guest.h"

int guest_main(void)
{
	print("reset\n");
	outb(0x64, 0xfe);
	for (;;)
		asm volatile("cli; hlt");
}
