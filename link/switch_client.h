/* SPDX-License-Identifier: Apache-2.0 */
/* Who talks to a switch: whoever starts a VM, and the process of the VM (link/switch_wire.h). */
#ifndef LINK_SWITCH_CLIENT_H
#define LINK_SWITCH_CLIENT_H

#include "link/switch_wire.h"

#include <sys/types.h>

/*
 * Connects to the switch at @path.  A descriptor that waits 10 s for what it receives, or a negative
 * errno; -ECONNREFUSED or -ENOENT: there is no switch.
 */
int switch_connect(const char *path);

/*
 * Sends @m and receives a message of type @want into @ret of @size bytes, at least those of a struct
 * switch_answer.  Its size, or a negative errno: what the switch refused with, -ETIMEDOUT, -EPIPE
 * (it has ended), -EPROTO and others.
 */
ssize_t switch_ask(int fd, const void *m, size_t len, enum switch_type want, void *ret, size_t size);

#endif /* LINK_SWITCH_CLIENT_H */
