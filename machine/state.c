/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/state.h"

#include "os/blob.h"
#include "os/err.h"
#include "virtio/mmio.h"
#include "vmm/platform.h"
#include "vmm/serial.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- processors */

/* Leaves that only tell rates, which differ a little from one start of a host to the next. */
static bool tells_rate(uint32_t leaf)
{
	return leaf == 0x15 || leaf == 0x16 || leaf == 0x40000010;
}

static bool same_cpuid(const struct cpuid_table *a, const struct cpuid_table *b)
{
	if (a->nentries != b->nentries)
		return false;
	for (unsigned i = 0; i < a->nentries; i++)
		if (!tells_rate(a->entry[i].leaf) && memcmp(&a->entry[i], &b->entry[i], sizeof(a->entry[i])) != 0)
			return false;
	return true;
}

/* Within one in a thousand: the guest's own corrections of its clock do more. */
static bool same_rate(uint32_t a, uint32_t b)
{
	return a - b + a / 1000 <= a / 500;
}

static int save_vcpu(struct vcpu *vcpu, struct blob *out, struct err *err)
{
	struct vcpu_state *state = malloc(sizeof(*state));
	int r = state ? vcpu->vm->engine->get_state(vcpu, state, err) : err_set(err, -ENOMEM, "out of host memory");

	if (r == 0)
		blob_put(out, state, sizeof(*state));
	free(state);
	return r;
}

static int save_vm(struct vm *vm, struct blob *out, struct err *err)
{
	struct vm_state state;
	int r = vm->engine->get_vm_state(vm, &state, err);

	if (r < 0)
		return r;
	blob_put_u32(out, vm->nvcpus);
	blob_put_u32(out, vm->tsc_khz);
	blob_put(out, &vm->cpuid, sizeof(vm->cpuid));
	blob_put(out, &state, sizeof(state));
	for (unsigned i = 0; i < vm->nvcpus && r == 0; i++)
		r = save_vcpu(&vm->vcpu[i], out, err);
	return r;
}

static int restore_vcpu(struct vcpu *vcpu, struct blob_reader *in, struct err *err)
{
	struct vcpu_state *state = malloc(sizeof(*state));
	const void *bytes = blob_take(in, sizeof(*state));
	int r = -EINVAL;

	if (state && bytes) {
		memcpy(state, bytes, sizeof(*state));
		r = vcpu->vm->engine->set_state(vcpu, state, err);
	} else if (!state) {
		r = err_set(err, -ENOMEM, "out of host memory");
	}
	free(state);
	return r;
}

static int restore_vm(struct vm *vm, struct blob_reader *in, struct err *err)
{
	uint32_t nvcpus = blob_take_u32(in), khz = blob_take_u32(in);
	const void *table = blob_take(in, sizeof(struct cpuid_table)), *bytes = blob_take(in, sizeof(struct vm_state));
	struct cpuid_table cpuid;
	struct vm_state state;
	int r;

	if (!table || !bytes || nvcpus != vm->nvcpus)
		return -EINVAL;
	memcpy(&cpuid, table, sizeof(cpuid));
	if (cpuid.nentries > CPUID_ENTRIES_MAX)
		return -EINVAL;
	if (!same_cpuid(&cpuid, &vm->cpuid) || !same_rate(vm->tsc_khz, khz))
		return err_set(err, -ENOTSUP, "the guest was saved on another kind of processor; it has to boot here");
	memcpy(&state, bytes, sizeof(state));
	r = vm->engine->set_vm_state(vm, &state, err);
	for (unsigned i = 0; i < vm->nvcpus && r == 0; i++)
		r = restore_vcpu(&vm->vcpu[i], in, err);
	return r;
}

/* ------------------------------------------------------------------- devices */

/* Each device's bytes behind their number, so that no device can read another's. */
static void save_device(struct virtio_mmio *mmio, struct blob *out)
{
	struct blob own = { 0 };

	virtio_mmio_save(mmio, &own);
	blob_put_u64(out, own.len);
	blob_put(out, own.bytes, own.len);
	out->failed |= own.failed;
	blob_finish(&own);
}

static int restore_device(struct virtio_mmio *mmio, struct blob_reader *in, struct err *err)
{
	uint64_t len = blob_take_u64(in);
	struct blob_reader own = { .left = len <= in->left ? (size_t)len : 0 };

	own.at = blob_take(in, own.left);
	return len != own.left || in->failed ? -EINVAL : virtio_mmio_restore(mmio, &own, err);
}

int state_save(const struct state_parts *p, struct blob *out, struct err *err)
{
	int r = save_vm(p->vm, out, err);

	if (r < 0)
		return r;
	platform_save(p->platform, out);
	serial_save(p->serial, out);
	blob_put_u32(out, p->nmmio);
	for (unsigned i = 0; i < p->nmmio; i++)
		save_device(p->mmio[i], out);
	return 0;
}

int state_restore(const struct state_parts *p, struct blob_reader *in, struct err *err)
{
	int r, changed = 0;

	if (err)
		err->msg[0] = '\0';
	r = restore_vm(p->vm, in, err);
	if (r == 0)
		r = platform_restore(p->platform, in);
	if (r == 0)
		r = serial_restore(p->serial, in);
	if (r == 0 && (blob_take_u32(in) != p->nmmio || in->failed))
		r = -EINVAL;
	for (unsigned i = 0; i < p->nmmio && r >= 0; i++) {
		r = restore_device(p->mmio[i], in, err);
		changed |= r > 0;
	}
	if (r >= 0 && in->left)
		r = -EINVAL;
	return r < 0 && err && !err->msg[0] ? err_set(err, r, "the saved state is not of a machine like this") :
	       r < 0 ? r : changed;
}
