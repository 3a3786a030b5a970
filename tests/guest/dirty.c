/* SPDX-License-Identifier: Apache-2.0 */
/* The host's log of changed pages. */
#include "guest.h"

#define FROM 0x1000000ull	/* the runner counts from here */

int guest_main(void)
{
	for (uint64_t i = 0; i < 16; i++)	/* pages that exist before the log does */
		write64(FROM + i * 4096, 1);
	check_equal("the log starts", dev_command(CMD_DIRTY_ON), 0);
	(void)dev_command(CMD_DIRTY_COUNT);
	check_equal("nothing written, nothing logged", dev_command(CMD_DIRTY_COUNT), 0);
	write64(FROM, 2);
	check_equal("one page written", dev_command(CMD_DIRTY_COUNT), 1);
	check_equal("reading the log clears it", dev_command(CMD_DIRTY_COUNT), 0);
	for (uint64_t i = 0; i < 10; i++)
		write64(FROM + i * 4096 + 8, i);
	write64(FROM + 2 * 4096, 5);
	check_equal("ten pages, one of them twice", dev_command(CMD_DIRTY_COUNT), 10);
	(void)read64(FROM + 4096);
	check_equal("reads do not count", dev_command(CMD_DIRTY_COUNT), 0);
	write64(FROM + 0x3000 - 4, -1ull);
	check_equal("a write across a border counts twice", dev_command(CMD_DIRTY_COUNT), 2);
	(void)dev_command(CMD_HOST_WRITE);
	check_equal("writes by the host count", dev_command(CMD_DIRTY_COUNT), 1);
	check_equal("and arrive", read32(FROM + 0x100000), 0x74736f68);
	check_equal("the log stops", dev_command(CMD_DIRTY_OFF), 0);
	return check_status();
}
