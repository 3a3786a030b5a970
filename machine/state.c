/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/state.h"

#include "base/checked.h"
#include "os/blob.h"
#include "os/err.h"
#include "virtio/mmio.h"
#include "vmm/platform.h"
#include "vmm/serial.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- processors */

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
	int r = vm_settle(vm, err);

	if (r == 0)
		r = vm->engine->get_vm_state(vm, &state, err);
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
	if (!cpuid_same(&cpuid, &vm->cpuid))
		return err_set(err, -ENOTSUP, "the guest was saved on another kind of processor; it has to boot here");
	if (!same_rate(vm->tsc_khz, khz))
		return err_set(err, -ENOTSUP, "the guest was saved where clocks count %u kHz, and here it is %u; it has to boot here", khz,
			       vm->tsc_khz);
	memcpy(&state, bytes, sizeof(state));
	r = vm->engine->set_vm_state(vm, &state, err);
	for (unsigned i = 0; i < vm->nvcpus && r == 0; i++)
		r = restore_vcpu(&vm->vcpu[i], in, err);
	return r;
}

/* ------------------------------------------------------------------- devices */

/* Each part's bytes behind their number, so that none can read another's, and who only compares finds the next. */
static void put_part(const struct blob *own, struct blob *out)
{
	blob_put_u64(out, own->len);
	blob_put(out, own->bytes, own->len);
	out->failed |= own->failed;
}

static void save_board(const struct state_parts *p, struct blob *out)
{
	struct blob own = { 0 };

	platform_save(p->platform, &own);
	put_part(&own, out);
	blob_finish(&own);
	own = (struct blob){ 0 };
	serial_save(p->serial, &own);
	put_part(&own, out);
	blob_finish(&own);
}

static void save_device(struct virtio_mmio *mmio, struct blob *out)
{
	struct blob own = { 0 };

	virtio_mmio_save(mmio, &own);
	put_part(&own, out);
	blob_finish(&own);
}

static int take_part(struct blob_reader *in, struct blob_reader *ret_own)
{
	uint64_t len = blob_take_u64(in);

	*ret_own = (struct blob_reader){ .left = len <= in->left ? (size_t)len : 0 };
	ret_own->at = blob_take(in, ret_own->left);
	return len != ret_own->left || in->failed ? -EINVAL : 0;
}

static int restore_board(const struct state_parts *p, struct blob_reader *in)
{
	struct blob_reader own;
	int r = take_part(in, &own);

	if (r == 0)
		r = platform_restore(p->platform, &own);
	if (r == 0)
		r = own.left ? -EINVAL : take_part(in, &own);
	if (r == 0)
		r = serial_restore(p->serial, &own);
	return r == 0 && own.left ? -EINVAL : r;
}

static int restore_device(struct virtio_mmio *mmio, struct blob_reader *in, struct err *err)
{
	struct blob_reader own;
	int r = take_part(in, &own);

	return r < 0 ? r : virtio_mmio_restore(mmio, &own, err);
}

int state_save(const struct state_parts *p, struct blob *out, struct err *err)
{
	int r = save_vm(p->vm, out, err);

	if (r < 0)
		return r;
	save_board(p, out);
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
		r = restore_board(p, in);
	if (r == 0 && (blob_take_u32(in) != p->nmmio || in->failed))
		r = -EINVAL;
	for (unsigned i = 0; i < p->nmmio && r >= 0; i++) {
		r = restore_device(p->mmio[i], in, err);
		changed = r > changed ? r : changed;
	}
	if (r >= 0 && in->left)
		r = -EINVAL;
	return r < 0 && err && !err->msg[0] ? err_set(err, r, "the saved state is not of a machine like this") :
	       r < 0 ? r : changed;
}

/* --------------------------------------------------------------- only looked at */

int state_cpuid(const uint8_t *state, size_t len, struct cpuid_table *ret)
{
	struct blob_reader in = { .at = state, .left = len };
	const void *table;

	(void)blob_take_u32(&in);
	(void)blob_take_u32(&in);
	table = blob_take(&in, sizeof(*ret));
	if (table)
		memcpy(ret, table, sizeof(*ret));
	for (unsigned i = 0; table && i < CPUID_ENTRIES_MAX; i++) {	/* any byte may be in the place of a bool */
		uint8_t byte;

		memcpy(&byte, &ret->entry[i].has_subleafs, sizeof(byte));
		ret->entry[i].has_subleafs = byte != 0;
	}
	return table && ret->nentries <= CPUID_ENTRIES_MAX ? 0 : -EINVAL;
}

static bool give(struct blob_reader *in, size_t len, const char *name, state_part_fn fn, void *ctx)
{
	const void *bytes = blob_take(in, len);

	if (bytes)
		fn(ctx, name, bytes, len);
	return bytes != NULL;
}

static bool give_part(struct blob_reader *in, const char *name, state_part_fn fn, void *ctx)
{
	struct blob_reader own;

	if (take_part(in, &own) < 0)
		return false;
	fn(ctx, name, own.at, own.left);
	return true;
}

/* VIRTIO 1.2, 5: by the number in a device's state. */
static const char *kind_of(struct blob_reader in)
{
	static const char *const kinds[] = { [1] = "net", [2] = "block", [3] = "console", [4] = "entropy", [5] = "balloon", [19] = "vsock",
					     [26] = "fs" };
	struct blob_reader own;
	uint32_t id;

	if (take_part(&in, &own) < 0)
		return "device";
	(void)blob_take_u32(&own);	/* version */
	id = blob_take_u32(&own);
	return id < ARRAY_SIZE(kinds) && kinds[id] ? kinds[id] : "device";
}

int state_each(const uint8_t *state, size_t len, state_part_fn fn, void *ctx)
{
	struct blob_reader in = { .at = state, .left = len };
	uint32_t nvcpus = blob_take_u32(&in), ndevices;
	char name[32];
	bool good;

	(void)blob_take_u32(&in);
	good = give(&in, sizeof(struct cpuid_table), "CPUID", fn, ctx) && give(&in, sizeof(struct vm_state), "IOAPIC and clock", fn, ctx);
	for (uint32_t i = 0; i < nvcpus && good; i++) {
		(void)snprintf(name, sizeof(name), "vCPU %u", i);
		good = give(&in, sizeof(struct vcpu_state), name, fn, ctx);
	}
	good = good && give_part(&in, "platform", fn, ctx) && give_part(&in, "serial port", fn, ctx);
	ndevices = good ? blob_take_u32(&in) : 0;
	for (uint32_t i = 0; i < ndevices && good; i++) {
		(void)snprintf(name, sizeof(name), "virtio-%s %u", kind_of(in), i);
		good = give_part(&in, name, fn, ctx);
	}
	return good && !in.left && !in.failed ? 0 : -EINVAL;
}
