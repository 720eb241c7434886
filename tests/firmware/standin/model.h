#ifndef MODEL_H
#define MODEL_H

#define MODEL_NAME "stand-in"
#define MODEL_MODALITIES {4, 1, 2, 3}
#define MODEL_SCALE 0.04f
#define MODEL_ZERO_POINT (-3)
#define MODEL_CLIP 5.0f
#define MODEL_CONFIDENCE_FACTOR 419430 /* a scale of 0.1 */

#endif
