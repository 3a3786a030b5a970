/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/snapshot.h"

#include "base/sha256.h"
#include "os/blob.h"
#include "os/err.h"
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define VERSION 2u
#define STATE_MAX (SNAPSHOT_MEMORY - SNAPSHOT_HEADER)

static const char magic[8] = { 'r', 'o', 'u', 'x', 's', 'n', 'a', 'p' };

struct header {
	char magic[8];
	uint32_t version;
	uint32_t zero;
	uint64_t state_len;
	uint64_t memory;
	struct snapshot_id id;
	char engine[16];	/* NUL-terminated */
	uint8_t state_sum[32];	/* SHA-256 of the state */
	uint8_t sum[32];	/* of the header in front of this */
};

_Static_assert(sizeof(struct header) == 128, "no padding");

static void sum(const void *bytes, size_t len, uint8_t ret_sum[32])
{
	struct sha256 hash;

	sha256_init(&hash);
	sha256_add(&hash, bytes, len);
	sha256_finish(&hash, ret_sum);
}

static void fill_header(struct header *h, const struct blob *state, const struct vm *vm)
{
	*h = (struct header){ .version = VERSION, .state_len = state->len, .memory = vm->mem->size };
	memcpy(h->magic, magic, sizeof(magic));
	(void)getrandom(&h->id, sizeof(h->id), 0);
	(void)snprintf(h->engine, sizeof(h->engine), "%s", vm->engine->name);
	sum(state->bytes, state->len, h->state_sum);
	sum(h, offsetof(struct header, sum), h->sum);
}

int snapshot_write(int fd, const struct blob *state, struct vm *vm, struct snapshot_id *ret_id, struct err *err)
{
	size_t size = snapshot_size(vm->mem->size);
	struct header header;
	struct stat st;
	uint8_t *at;

	if (state->failed)
		return err_set(err, -ENOMEM, "out of host memory");
	if (state->len > STATE_MAX)
		return err_set(err, -E2BIG, "the state of the VM's devices is too large to be saved");
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != size)
		return err_set(err, -EINVAL, "the file for the snapshot has not the size that it needs");
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return err_set(err, -errno, "cannot write the snapshot: %s", strerror(errno));
	fill_header(&header, state, vm);
	memcpy(at + SNAPSHOT_HEADER, state->bytes, state->len);
	mem_copy(vm->mem, at + SNAPSHOT_MEMORY);
	memcpy(at, &header, sizeof(header));
	(void)munmap(at, size);
	*ret_id = header.id;
	return 0;
}

static int read_all(int fd, void *to, size_t len, off_t at)
{
	ssize_t n = pread(fd, to, len, at);

	return n < 0 ? -errno : (size_t)n == len ? 0 : -EBADMSG;
}

static int check_header(const struct header *h, uint64_t file_size, const char *path, struct err *err)
{
	uint8_t found[32];

	if (memcmp(h->magic, magic, sizeof(magic)) != 0)
		return err_set(err, -EBADMSG, "%s is not a snapshot", path);
	if (h->version != VERSION)
		return err_set(err, -ENOTSUP, "snapshot %s is of version %u, and this roux reads version %u; take it again",
			       path, h->version, VERSION);
	sum(h, offsetof(struct header, sum), found);
	if (memcmp(found, h->sum, sizeof(found)) != 0 || h->state_len > STATE_MAX || h->memory == 0 ||
	    h->memory > INT64_MAX / 2 || memchr(h->engine, '\0', sizeof(h->engine)) == NULL || file_size != snapshot_size(h->memory))
		return err_set(err, -EBADMSG, "snapshot %s is damaged; take it again", path);
	return 0;
}

int snapshot_open(const char *path, struct snapshot *ret, struct err *err)
{
	struct header h;
	uint8_t found[32];
	struct stat st;
	int r;

	*ret = (struct snapshot){ .fd = open(path, O_RDONLY | O_CLOEXEC) };
	if (ret->fd < 0)
		return err_set(err, -errno, "cannot open snapshot %s: %s", path, strerror(errno));
	r = fstat(ret->fd, &st) < 0 ? -errno : read_all(ret->fd, &h, sizeof(h), 0);
	if (r < 0)
		(void)err_set(err, r, r == -EBADMSG ? "%s is not a snapshot" : "cannot read snapshot %s", path);
	else
		r = check_header(&h, (uint64_t)st.st_size, path, err);
	if (r < 0)
		goto fail;
	ret->memory = h.memory;
	ret->id = h.id;
	memcpy(ret->engine, h.engine, sizeof(ret->engine));
	ret->state_len = h.state_len;
	ret->state = malloc(h.state_len ? h.state_len : 1);
	r = ret->state ? read_all(ret->fd, ret->state, h.state_len, SNAPSHOT_HEADER) : -ENOMEM;
	if (r == 0) {
		sum(ret->state, ret->state_len, found);
		r = memcmp(found, h.state_sum, sizeof(found)) == 0 ? 0 : -EBADMSG;
	}
	if (r < 0) {
		(void)err_set(err, r, r == -EBADMSG ? "snapshot %s is damaged; take it again" : "cannot read snapshot %s", path);
		goto fail;
	}
	return 0;

fail:
	snapshot_close(ret);
	return r;
}

void snapshot_close(struct snapshot *s)
{
	if (s->fd >= 0)
		(void)close(s->fd);
	free(s->state);
	*s = (struct snapshot){ .fd = -1 };
}
