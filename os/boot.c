/* SPDX-License-Identifier: Apache-2.0 */
#include "os/boot.h"

#include <fcntl.h>
#include <unistd.h>

bool boot_id(char ret_id[BOOT_ID_SIZE])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret_id, BOOT_ID_SIZE - 1);

	if (fd >= 0)
		(void)close(fd);
	if (n != BOOT_ID_SIZE - 1)
		return false;
	ret_id[n] = '\0';
	return true;
}
