/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writer of ACPI Machine Language, as much of it as a table of devices needs.
 *
 * Everything goes to one buffer; a term that contains others is opened, filled
 * and closed, and closing writes its length.  A full buffer sets ->overflow and
 * drops the rest, so only the end result needs a check.
 *
 * Source: ACPI 6.4, chapter 20 (AML) and 6.4 (resource descriptors).
 */
#ifndef VMM_AML_H
#define VMM_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
	uint8_t *buf;	/* borrowed */
	size_t size, used;	/* bytes */
	bool overflow;
};

/* Handle of an open term: where its length goes. */
typedef size_t aml_mark;

/* @name is an ACPI name path: "\\_SB", "COM1", ... with segments of four characters. */
aml_mark aml_scope_open(struct aml *aml, const char *name);
aml_mark aml_device_open(struct aml *aml, const char *name);
void aml_close(struct aml *aml, aml_mark mark);

/* Name (@name, value) */
void aml_name_int(struct aml *aml, const char *name, uint64_t value);
void aml_name_string(struct aml *aml, const char *name, const char *value);
/* @eisa_id like "PNP0501". */
void aml_name_eisa_id(struct aml *aml, const char *name, const char *eisa_id);
/* Name (@name, Package () { values }), at most 8 values. */
void aml_name_package(struct aml *aml, const char *name, const uint64_t *values, unsigned n);

/* Method (@name, @nargs, NotSerialized) { terms }, to be closed. */
aml_mark aml_method_open(struct aml *aml, const char *name, unsigned nargs);
/* Notify (@object, @value). */
void aml_notify(struct aml *aml, const char *object, uint8_t value);

/* Name (_CRS, ResourceTemplate () { ... }), the parts between open and close. */
aml_mark aml_crs_open(struct aml *aml);
void aml_crs_memory32(struct aml *aml, uint32_t base, uint32_t len);
void aml_crs_io(struct aml *aml, uint16_t port, uint8_t len);
void aml_crs_interrupt(struct aml *aml, uint32_t gsi, bool edge);
void aml_crs_close(struct aml *aml, aml_mark mark);

#endif /* VMM_AML_H */
