/* SPDX-License-Identifier: Apache-2.0 */
/* The guest of a spec put into a VM's memory: kernel, initramfs archives, command line, tables of the firmware. */
#ifndef MACHINE_LOAD_H
#define MACHINE_LOAD_H

struct acpi_device;
struct err;
struct machine_spec;
struct vm;

/*
 * Loads what @spec says into @vm's memory and sets its first vCPU to the kernel's entry.
 * @device: the @ndevices windows that the tables tell the guest of.  @cache_dir: existing
 * folder for unpacked kernels, or NULL.  0, or a negative errno with a sentence.
 */
int machine_load(struct vm *vm, const struct machine_spec *spec, const struct acpi_device *device,
		 unsigned ndevices, const char *cache_dir, struct err *err);

#endif /* MACHINE_LOAD_H */
