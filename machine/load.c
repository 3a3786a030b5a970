/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/load.h"

#include "abi/guest_conf.h"
#include "base/cpio.h"
#include "machine/spec.h"
#include "os/err.h"
#include "vmm/acpi.h"
#include "vmm/boot.h"
#include "vmm/generation.h"
#include "vmm/load.h"
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONF_ARCHIVE_MAX (GUEST_CONF_SIZE_MAX + 1024u)

struct initrds {
	struct boot_blob blob[SPEC_INITRDS_MAX + 1];
	unsigned n, nmapped;
	uint8_t *conf;	/* the archive with /roux.conf, owned */
};

static int map_file(const char *path, struct boot_blob *ret, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;
	struct stat st;
	void *p;

	if (fd < 0)
		return err_set(err, -errno, "cannot open initramfs %s: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size == 0) {
		(void)close(fd);
		return err_set(err, -EINVAL, "initramfs %s is not a file with contents", path);
	}
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	r = p == MAP_FAILED ? -errno : 0;
	(void)close(fd);
	if (r < 0)
		return err_set(err, r, "cannot read initramfs %s: %s", path, strerror(-r));
	*ret = (struct boot_blob){ .data = p, .size = (size_t)st.st_size };
	return 0;
}

static int make_conf(const char *text, struct initrds *in, struct err *err)
{
	struct cpio c;
	size_t size;

	in->conf = malloc(CONF_ARCHIVE_MAX);
	if (!in->conf)
		return err_set(err, -ENOMEM, "out of host memory");
	cpio_begin(&c, in->conf, CONF_ARCHIVE_MAX);
	cpio_file(&c, &GUEST_CONF_PATH[1], 0600, text, (uint32_t)strlen(text));
	size = cpio_end(&c);
	if (size == 0)
		return err_set(err, -E2BIG, "the guest's configuration is too long; share fewer folders");
	in->blob[in->n++] = (struct boot_blob){ .data = in->conf, .size = size };
	return 0;
}

static void initrds_finish(struct initrds *in)
{
	for (unsigned i = 0; i < in->nmapped; i++)
		(void)munmap((void *)(uintptr_t)in->blob[i].data, in->blob[i].size);
	free(in->conf);
}

int machine_load(struct vm *vm, const struct machine_spec *spec, const struct acpi_device *device,
		 unsigned ndevices, const char *cache_dir, struct err *err)
{
	struct boot_spec boot = { .cmdline = spec->cmdline };
	struct initrds in = { .n = 0 };
	struct vcpu_state state;
	struct kernel kernel;
	int r = kernel_open(spec->kernel, cache_dir, &kernel, err);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < spec->initrd.n && r == 0; i++) {
		r = map_file(spec->initrd.at[i], &in.blob[in.n], err);
		if (r == 0)
			in.nmapped = ++in.n;
	}
	if (r == 0 && spec->guest_conf)
		r = make_conf(spec->guest_conf, &in, err);
	boot.kernel = &kernel;
	boot.initrd = in.blob;
	boot.ninitrd = in.n;
	if (r == 0)
		r = acpi_build(vm->mem, &(struct acpi_spec){ .nvcpus = vm->nvcpus, .com1 = true, .generation = true,
							     .device = device, .ndevices = ndevices }, &boot.rsdp, err);
	if (r == 0)
		r = generation_draw(vm->mem);
	if (r == 0)
		r = boot_load(vm->mem, &boot, &state, err);
	if (r == -ENOEXEC)
		(void)err_prefix(err, r, "%s", spec->kernel);
	if (r == 0)
		r = vm->engine->set_state(&vm->vcpu[0], &state, err);
	initrds_finish(&in);
	kernel_close(&kernel);
	return r;
}
