/* An external TFLite delegate for the tests: takes softmax, if told to, and computes it; else takes nothing.
 *
 * Options: "take" = "softmax" or "nothing"; "echo" = a file to write the options to. Any other key is refused.
 * The structs are the first fields of those in TFLite's C API (tensorflow/lite/core/c/common.h), which is stable. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, ERROR = 1, SOFTMAX = 25 };

typedef struct { int size; int data[]; } IntArray;
typedef struct { int type; void *data; IntArray *dims; float scale; int zero_point; int allocation; size_t bytes;
                 const void *source; const char *name; void *delegate; int buffer; char stale, variable;
                 int quantization_type; void *quantization; void *sparsity; const IntArray *signature; } Tensor;
typedef struct { IntArray *inputs, *outputs; } Node;
typedef struct Context Context;
typedef struct { void *(*init)(Context *, const char *, size_t); void (*free)(Context *, void *);
                 int (*prepare)(Context *, Node *); int (*invoke)(Context *, Node *);
                 const char *(*profiling)(const Context *, const Node *); int32_t builtin; const char *name; int version;
                 void *external, *async; uint64_t inplace; } Registration;
typedef struct Delegate { void *data; int (*prepare)(Context *, struct Delegate *);
                          void *from_buffer, *to_buffer, *free_buffer; int64_t flags; void *builder; } Delegate;
struct Context { size_t tensors_size; int (*plan)(Context *, IntArray **); Tensor *tensors; void *impl;
                 void *resize, *report, *add; int (*node)(Context *, int, Node **, Registration **);
                 int (*replace)(Context *, Registration, const IntArray *, Delegate *); };

static void *init(Context *context, const char *buffer, size_t length) { return NULL; }
static void release(Context *context, void *data) {}
static int prepare_kernel(Context *context, Node *node) { return OK; }

static int invoke(Context *context, Node *node) {
  const Tensor *in = &context->tensors[node->inputs->data[0]];
  Tensor *out = &context->tensors[node->outputs->data[0]];
  const float *logits = in->data;
  float *result = out->data, largest = -INFINITY, sum = 0;
  const int classes = in->bytes / sizeof(float);
  for (int i = 0; i < classes; i++) largest = fmaxf(largest, logits[i]);
  for (int i = 0; i < classes; i++) sum += result[i] = expf(logits[i] - largest);
  for (int i = 0; i < classes; i++) result[i] /= sum;
  return OK;
}

static int prepare(Context *context, Delegate *delegate) {
  IntArray *plan;
  if (!delegate->data) return OK;
  if (context->plan(context, &plan) != OK) return ERROR;
  IntArray *taken = calloc(1, sizeof(IntArray) + plan->size * sizeof(int));
  for (int i = 0; i < plan->size; i++) {
    Node *node;
    Registration *registration;
    if (context->node(context, plan->data[i], &node, &registration) != OK) return ERROR;
    if (registration->builtin == SOFTMAX) taken->data[taken->size++] = plan->data[i];
  }
  const Registration kernel = {init, release, prepare_kernel, invoke, NULL, 51 /* DELEGATE */, "TestDelegate", 1};
  const int status = context->replace(context, kernel, taken, delegate);
  free(taken);
  return status;
}

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  Delegate *delegate = calloc(1, sizeof(Delegate));
  delegate->prepare = prepare;
  for (size_t i = 0; i < count; i++) {
    if (!strcmp(keys[i], "take")) {
      delegate->data = strcmp(values[i], "softmax") ? NULL : delegate;
    } else if (!strcmp(keys[i], "echo")) {
      FILE *file = fopen(values[i], "w");
      for (size_t j = 0; j < count; j++) fprintf(file, "%s=%s\n", keys[j], values[j]);
      fclose(file);
    } else {
      report("unknown option");
      free(delegate);
      return NULL;
    }
  }
  return delegate;
}

void tflite_plugin_destroy_delegate(Delegate *delegate) { free(delegate); }
