/* SPDX-License-Identifier: Apache-2.0 */
/* The sending side of machine/snapshot.h, in the VM's process. */
#include "machine/snapshot_send.h"

#include "machine/snapshot.h"
#include "os/blob.h"
#include "os/err.h"
#include "os/file.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int send_run(void *ctx, uint64_t offset, const uint8_t *bytes, uint64_t len)
{
	const struct send_run run = { offset, len };
	int fd = *(int *)ctx, r = file_write_all(fd, &run, sizeof(run));

	return r < 0 ? r : file_write_all(fd, bytes, len);
}

static int sent(int r, struct err *err)
{
	return r < 0 ? err_set(err, r, "cannot send the guest: %s", strerror(-r)) : 0;
}

int snapshot_send_start(int fd, const struct vm *vm, struct err *err)
{
	struct send_head head = { .memory = vm->mem->size };

	memcpy(head.magic, SNAPSHOT_SEND_MAGIC, sizeof(head.magic));
	(void)snprintf(head.engine, sizeof(head.engine), "%s", vm->engine->name);
	return sent(file_write_all(fd, &head, sizeof(head)), err);
}

int snapshot_send_memory(int fd, const struct vm *vm, const uint64_t *bitmap, struct err *err)
{
	return sent(bitmap ? mem_each_marked(vm->mem, bitmap, send_run, &fd) : mem_each(vm->mem, send_run, &fd), err);
}

int snapshot_send_end(int fd, const struct blob *state, struct err *err)
{
	const struct send_run end = { .offset = state->len };
	int r = state->failed ? -ENOMEM : file_write_all(fd, &end, sizeof(end));

	return sent(r < 0 ? r : file_write_all(fd, state->bytes, state->len), err);
}
