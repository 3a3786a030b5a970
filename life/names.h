/* SPDX-License-Identifier: Apache-2.0 */
/* Ids and names of VMs. */
#ifndef LIFE_NAMES_H
#define LIFE_NAMES_H

#include "life/record.h"

#define VM_ID_SHORT 12 /* digits of an id that people see */

bool vm_id_valid(const char *text);	/* 64 lower-case hex digits */

/* As docker: [a-zA-Z0-9][a-zA-Z0-9_.-]*, and shorter than VM_NAME_MAX. */
bool vm_name_valid(const char *text);

/* A fresh random id.  0 or a negative errno. */
int vm_id_make(char ret_id[VM_ID_SIZE]);

/* An adjective and a noun, chosen at random; @attempt > 2 adds a number. */
void vm_name_make(unsigned attempt, char ret_name[VM_NAME_MAX]);

#endif /* LIFE_NAMES_H */
