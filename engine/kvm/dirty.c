/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM notes the pages that guest code writes; pages that the host writes for the
 * guest (device DMA) come from mem_wrote(), through mem->watch.
 */
#include "engine/kvm/internal.h"

#include "os/err.h"
#include "vmm/vm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define PAGE_SHIFT 12

static size_t bitmap_words(uint64_t bytes)
{
	return (size_t)((bytes >> PAGE_SHIFT) + 63) / 64;
}

static void host_wrote(void *ctx, gpa_t gpa, uint64_t len)
{
	const struct vm *vm = ctx;
	const struct kvm_vm *kvm = vm->engine_data;

	for (unsigned i = 0; i < vm->mem->nbanks; i++) {
		const struct mem_bank *b = &vm->mem->bank[i];
		uint64_t page, last;

		if (gpa < b->base || gpa - b->base >= b->size)
			continue;
		page = (b->offset + (gpa - b->base)) >> PAGE_SHIFT;
		last = (b->offset + (gpa - b->base) + len - 1) >> PAGE_SHIFT;
		for (; page <= last; page++)
			atomic_fetch_or(&kvm->host_dirty[page / 64], 1ull << (page % 64));
	}
}

int kvm_dirty_log_set(struct vm *vm, bool on, struct err *err)
{
	struct kvm_vm *kvm = vm->engine_data;
	_Atomic uint64_t *old = kvm->host_dirty;

	if (on && !old) {
		kvm->host_dirty = calloc(bitmap_words(vm->mem->size), sizeof(*old));
		if (!kvm->host_dirty)
			return err_set(err, -ENOMEM, "out of host memory");
	}
	for (unsigned i = 0; i < vm->mem->nbanks; i++) {
		int r = kvm_set_bank(vm, i, on);

		if (r < 0)
			return err_set(err, r, "KVM cannot track changed pages: %s", strerror(-r));
	}
	if (on) {
		vm->mem->watch = (struct mem_watch){ .wrote = host_wrote, .ctx = vm };
	} else {
		vm->mem->watch = (struct mem_watch){ 0 };
		kvm->host_dirty = NULL;
		free((void *)(uintptr_t)old);
	}
	return 0;
}

static int add_slot(const struct kvm_vm *kvm, unsigned slot, const struct mem_bank *b,
		    uint64_t *bitmap, uint64_t *scratch)
{
	struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = scratch };
	uint64_t first = b->offset >> PAGE_SHIFT;	/* a multiple of 64: banks are 2 MiB wide */

	if (ioctl(kvm->fd, KVM_GET_DIRTY_LOG, &log) < 0)
		return -errno;
	for (size_t i = 0; i < bitmap_words(b->size); i++)
		bitmap[first / 64 + i] |= scratch[i];
	return 0;
}

int kvm_dirty_log_get(struct vm *vm, uint64_t *bitmap, struct err *err)
{
	const struct kvm_vm *kvm = vm->engine_data;
	uint64_t *scratch;
	int r = 0;

	if (!kvm->host_dirty)
		return err_set(err, -EINVAL, "changed pages are not being tracked");
	scratch = calloc(bitmap_words(vm->mem->size), sizeof(*scratch));
	if (!scratch)
		return err_set(err, -ENOMEM, "out of host memory");
	for (unsigned i = 0; i < vm->mem->nbanks && r == 0; i++)
		r = add_slot(kvm, i, &vm->mem->bank[i], bitmap, scratch);
	free(scratch);
	if (r < 0)
		return err_set(err, r, "KVM does not tell the changed pages: %s", strerror(-r));
	for (size_t i = 0; i < bitmap_words(vm->mem->size); i++)
		bitmap[i] |= atomic_exchange(&kvm->host_dirty[i], 0);
	return 0;
}
