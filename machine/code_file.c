/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/code_file.h"

#include "base/sha256.h"
#include "machine/snapshot.h"
#include "os/err.h"
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[8] = { 'r', 'o', 'u', 'x', 'c', 'o', 'd', '1' };

struct header {
	char magic[8];
	struct snapshot_id of;
	char engine[16];	/* NUL-terminated */
	uint64_t bytes;	/* behind the header */
	uint32_t generation, zero;
	uint8_t sum[32];	/* SHA-256 of what is in front of it */
};

_Static_assert(sizeof(struct header) == 88, "no padding");

static void sum(const struct header *h, uint8_t ret_sum[32])
{
	struct sha256 hash;

	sha256_init(&hash);
	sha256_add(&hash, h, offsetof(struct header, sum));
	sha256_finish(&hash, ret_sum);
}

int code_file_write(int fd, const struct snapshot_id *id, uint32_t generation, struct vm *vm, uint64_t *ret_bytes,
		    struct err *err)
{
	struct header h = { .of = *id, .generation = generation,
			    .bytes = vm->engine->kept_bytes ? vm->engine->kept_bytes(vm) : 0 };
	struct stat st;
	uint8_t *at;

	*ret_bytes = 0;
	if (h.bytes == 0 || h.bytes > CODE_FILE_MAX - CODE_FILE_HEADER)
		return 0;
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != CODE_FILE_MAX)
		return err_set(err, -EINVAL, "the file for translated code has not the size that it needs");
	at = mmap(NULL, CODE_FILE_HEADER + h.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return err_set(err, -errno, "cannot write translated code: %s", strerror(errno));
	vm->engine->keep(vm, at + CODE_FILE_HEADER);
	memcpy(h.magic, magic, sizeof(magic));
	(void)snprintf(h.engine, sizeof(h.engine), "%s", vm->engine->name);
	sum(&h, h.sum);
	memcpy(at, &h, sizeof(h));
	(void)munmap(at, CODE_FILE_HEADER + h.bytes);
	*ret_bytes = CODE_FILE_HEADER + h.bytes;
	return 0;
}

static int check(const struct header *h, uint64_t file_size, const struct snapshot_id *id, const struct vm *vm)
{
	uint8_t found[32];

	sum(h, found);
	if (memcmp(h->magic, magic, sizeof(magic)) != 0 || memcmp(found, h->sum, sizeof(found)) != 0 ||
	    h->bytes > CODE_FILE_MAX || file_size != CODE_FILE_HEADER + h->bytes)
		return -EBADMSG;
	if (memcmp(&h->of, id, sizeof(*id)) != 0 || strncmp(h->engine, vm->engine->name, sizeof(h->engine)) != 0)
		return -ESTALE;
	return 0;
}

int code_file_take(int fd, uint64_t offset, uint64_t bytes, const struct snapshot_id *id, struct vm *vm,
		   uint32_t *ret_generation, struct err *err)
{
	struct header h;
	int r = pread(fd, &h, sizeof(h), (off_t)offset) == sizeof(h) ? check(&h, bytes, id, vm) : -EBADMSG;

	if (r < 0)
		return err_set(err, r, "there is no translated code for this guest");
	if (!vm->engine->take_kept)
		return err_set(err, -ENOTSUP, "the engine keeps no translated code");
	r = vm->engine->take_kept(vm, fd, offset + CODE_FILE_HEADER, h.bytes, err);
	if (r == 0)
		*ret_generation = h.generation;
	return r;
}

int code_file_take_path(const char *path, const struct snapshot_id *id, struct vm *vm, uint32_t *ret_generation,
			struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;
	struct stat st;

	if (fd < 0)
		return err_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
	r = fstat(fd, &st) < 0 ? err_set(err, -errno, "cannot read %s: %s", path, strerror(errno)) :
		code_file_take(fd, 0, (uint64_t)st.st_size, id, vm, ret_generation, err);
	(void)close(fd);
	return r;
}
